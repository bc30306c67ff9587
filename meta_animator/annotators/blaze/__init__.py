"""The light annotators: six small networks of MediaPipe (Apache-2.0), run by LiteRT without MediaPipe itself.

The order of the work and its constants follow MediaPipe's pose, face and hand graphs. Two of its conventions look like faults
but are those that its networks answer best to: a crop takes pixel k of n from k / n of the region, without half a pixel of
offset, while a mask is pasted back with it.
"""
