/* BCC includes this for its histogram macros, which these programs do not use. */
