"""Methods of the literature that need torch or a library, under the interface of `mmrec_stream/evaluation`."""
