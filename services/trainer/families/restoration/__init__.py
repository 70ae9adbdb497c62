"""The restoration family: a small network, trained here, that undoes defects (arrow 6).

In: good photos and the defects of `services.trainer.synthesis`. Out: a head whose distance is what the
network would change of a picture. torch is imported in `training` alone, and only when a network is
trained; weights are arrays that are drawn into the graph.
"""
