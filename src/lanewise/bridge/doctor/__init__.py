"""DOCTOR: why a PyTorch module cannot run on its images, and the edit that makes it run.

A recorded run ends in a call that failed (or mixed images with each other). `causes` says by
arithmetic what is wrong with that call and which edits of the source may help; `healing` tries them
on a copy of the source, as long as a next error needs a next edit; `edits` finds calls and
arguments in the source.
"""
