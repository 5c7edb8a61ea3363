"""Neurons that are functions: spikes that a custom `autograd.Function` makes within a forward.

Much published code has no module for a neuron: `mem, spike = mem_update(self.conv1, x, mem, spike)`
calls `ActFun.apply`, for each layer and time step, in the forward of the whole network. No hook is
called there. So the functions themselves are listened to (`listening`), a call is told by where it
stands in the code (`places`) and by the weights behind it (`sources`), and each site is read like a
layer of its own (`inside`).
"""
