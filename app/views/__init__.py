"""The pages. Each is one function that Streamlit calls; main.py names them.

Not called `pages`: Streamlit would run the files of such a folder as scripts of their own.
"""
