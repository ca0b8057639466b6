"""Compiled nets on Sophon TPUs, through the vendor's `sophon.sail`."""
