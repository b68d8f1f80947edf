/* Instruction classes live here in the kernel's tree; C programs need none of them. */
