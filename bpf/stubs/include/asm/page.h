/* BCC sizes its per-event buffers by this; these programs have none. */
#define PAGE_SIZE 4096
