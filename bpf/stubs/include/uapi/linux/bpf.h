/* Empty on purpose: BCC brings its own copy of this header. */
