/* SPDX-License-Identifier: GPL-2.0-only */
/* Logarithms without branches: each branch would double the paths that the verifier follows. */

/* 1 if a < b, for values below 2^63. The barrier keeps clang from making it a branch again. */
static __always_inline u64 less(u64 a, u64 b)
{
    u64 difference = a - b;

    asm volatile("" : "+r"(difference));
    return difference >> 63;
}

/* floor(log2(value)) for 1 <= value < 2^63, by halving the range (BPF has no count-leading-zeros). */
static __always_inline u64 log2_floor(u64 value)
{
    u64 exponent, step;

    exponent = less(0xffffffff, value) << 5;
    value >>= exponent;
    step = less(0xffff, value) << 4;
    value >>= step;
    exponent += step;
    step = less(0xff, value) << 3;
    value >>= step;
    exponent += step;
    step = less(0xf, value) << 2;
    value >>= step;
    exponent += step;
    step = less(0x3, value) << 1;
    value >>= step;
    exponent += step;
    return exponent + less(0x1, value);
}

/* log2(value) in 1 / (1 << LOG_SHIFT) for 1 <= value < 2^48; the error is below 0.01. */
static __always_inline u64 log2_fixed(u64 value)
{
    u64 exponent = log2_floor(value);
    u64 fraction = ((value << LOG_SHIFT) >> exponent) & ((1 << LOG_SHIFT) - 1);

    /* log2(1 + f) is close to f + 0.344 f (1 - f); 88 / 256 is 0.344 */
    fraction += 88 * fraction * ((1 << LOG_SHIFT) - fraction) >> (2 * LOG_SHIFT);
    return (exponent << LOG_SHIFT) + fraction;
}
