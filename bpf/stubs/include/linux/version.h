/* Socket programs do not depend on the kernel's version; BCC only wants the macros to exist. */
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE 0
