/* BCC includes this first. It stands in for the kernel's build configuration. */
#define CONFIG_BPF_SYSCALL 1
