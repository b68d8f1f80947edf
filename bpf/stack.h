/* SPDX-License-Identifier: GPL-2.0-only */
/* What the programs hand to helpers on the stack, always written as whole words of 8 bytes: without CAP_PERFMON,
 * verifiers before 6.8 let no part of a word be overwritten in which they have seen a value that they know something of
 * ("attempt to corrupt spilled pointer on stack"). */

/* Two neighbours in memory as one word. */
static __always_inline u64 pair(u32 first, u32 second)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return (u64)second << 32 | first;
#else
    return (u64)first << 32 | second;
#endif
}

/* A map's index, or an option's value: union stack_int index = {.word = pair(group, 0)}. */
union stack_int {
    u64 word;
    int value;
};

union stack_key {
    u64 words[3];
    struct prefix_key key;
};

static __always_inline void make_key(union stack_key *key, u32 bits, const u32 address[4])
{
    key->words[0] = pair(bits, address[0]);
    key->words[1] = pair(address[1], address[2]);
    key->words[2] = pair(address[3], 0);
}
