/* SPDX-License-Identifier: GPL-2.0-only */
/* Addresses as 128-bit keys, for IPv4, IPv6 and IPv4-mapped sockets alike. */

/* Both ends as the socket's family stores them. The barriers keep clang from choosing the context field's address first
 * and loading later, which the verifier refuses ("dereference of modified ctx ptr"). */
static __always_inline void read_addresses(struct bpf_sock_ops *skops, u32 remote[4], u32 local[4])
{
    u32 word;

    if (skops->family == FAMILY_INET) {
        remote[0] = local[0] = 0;
        remote[1] = local[1] = 0;
        remote[2] = local[2] = MAPPED_WORD;
        word = skops->remote_ip4;
        asm volatile("" : "+r"(word));
        remote[3] = word;
        word = skops->local_ip4;
        asm volatile("" : "+r"(word));
        local[3] = word;
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        word = skops->remote_ip6[i];
        asm volatile("" : "+r"(word));
        remote[i] = word;
        word = skops->local_ip6[i];
        asm volatile("" : "+r"(word));
        local[i] = word;
    }
}

/* Loopback, and one of the host's own addresses, which the kernel routes through loopback. */
static __always_inline int is_local(const u32 remote[4], const u32 local[4])
{
    if (!remote[0] && !remote[1]) {
        if (remote[2] == MAPPED_WORD && (remote[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000))
            return 1;
        if (!remote[2] && remote[3] == bpf_htonl(1))
            return 1;
    }
    return remote[0] == local[0] && remote[1] == local[1] && remote[2] == local[2] && remote[3] == local[3];
}

static __always_inline u32 masked_word(u32 word, int bits)
{
    if (bits <= 0)
        return 0;
    if (bits >= 32)
        return word;
    return word & bpf_htonl(~0U << (32 - bits));
}

static __always_inline void mask_address(u32 masked[4], const u32 address[4], int bits)
{
    masked[0] = masked_word(address[0], bits);
    masked[1] = masked_word(address[1], bits - 32);
    masked[2] = masked_word(address[2], bits - 64);
    masked[3] = masked_word(address[3], bits - 96);
}
