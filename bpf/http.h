// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// How the first bytes of a buffer are read: is this the head of an HTTP message,
// could it become one, and is it a request that an LLM might answer.
#pragma once

enum match {
	MATCH_NONE,
	MATCH_PREFIX,   // all bytes so far are the start of a head
	MATCH_POST,     // a request head that crosses
	MATCH_REQUEST,  // a request head whose path decides
	MATCH_RESPONSE, // a response head
	MATCH_H2,       // the start of HTTP/2 in either direction
};

// Eight bytes of text as they lie in memory.
#define W8(a, b, c, d, e, f, g, h)                                                                 \
	((__u64)(a) | (__u64)(b) << 8 | (__u64)(c) << 16 | (__u64)(d) << 24 | (__u64)(e) << 32 |   \
	 (__u64)(f) << 40 | (__u64)(g) << 48 | (__u64)(h) << 56)

#define LOW(n) ((n) >= 8 ? ~0ULL : (1ULL << ((n) * 8)) - 1)

#define TOKEN(word, n, result)                                                                     \
	do {                                                                                       \
		if (len >= (n)) {                                                                  \
			if ((v & LOW(n)) == (word))                                                \
				return result;                                                     \
		} else if (v == ((word) & low)) {                                                  \
			return MATCH_PREFIX;                                                       \
		}                                                                                  \
	} while (0)

// v: the first len (1..8) bytes, the rest zero.
static __always_inline int match_head(__u64 v, __u32 len)
{
	__u64 low = len >= 8 ? ~0ULL : (1ULL << ((len & 7) * 8)) - 1;

	TOKEN(W8('P', 'O', 'S', 'T', ' ', 0, 0, 0), 5, MATCH_POST);
	TOKEN(W8('G', 'E', 'T', ' ', 0, 0, 0, 0), 4, MATCH_REQUEST);
	TOKEN(W8('H', 'T', 'T', 'P', '/', '1', '.', 0), 7, MATCH_RESPONSE);
	TOKEN(W8('P', 'R', 'I', ' ', '*', ' ', 'H', 'T'), 8, MATCH_H2);
	TOKEN(W8('P', 'U', 'T', ' ', 0, 0, 0, 0), 4, MATCH_REQUEST);
	TOKEN(W8('H', 'E', 'A', 'D', ' ', 0, 0, 0), 5, MATCH_REQUEST);
	TOKEN(W8('D', 'E', 'L', 'E', 'T', 'E', ' ', 0), 7, MATCH_REQUEST);
	TOKEN(W8('P', 'A', 'T', 'C', 'H', ' ', 0, 0), 6, MATCH_REQUEST);
	TOKEN(W8('O', 'P', 'T', 'I', 'O', 'N', 'S', ' '), 8, MATCH_REQUEST);
	TOKEN(W8('C', 'O', 'N', 'N', 'E', 'C', 'T', ' '), 8, MATCH_REQUEST);
	TOKEN(W8('T', 'R', 'A', 'C', 'E', ' ', 0, 0), 6, MATCH_REQUEST);
	return MATCH_NONE;
}

// A server may send its HTTP/2 SETTINGS frame before it reads the preface.
// RFC 9113, 4.1 and 6.5: 24 bits of length, a multiple of six, type 4, flags 0,
// and of the stream id, which is 0, the first three bytes.
static __always_inline bool h2_settings(__u64 v)
{
	__u32 len = (v & 0xff) << 16 | (v >> 8 & 0xff) << 8 | (v >> 16 & 0xff);

	return v >> 24 == 4 && len <= 16384 && len % 6 == 0;
}

// A connection that is joined late is known by its next request: a HEADERS frame, all
// of the header block in it (RFC 9113, 6.2), on a stream below 2^16.
static __always_inline bool h2_request(__u64 v)
{
	__u32 len = (v & 0xff) << 16 | (v >> 8 & 0xff) << 8 | (v >> 16 & 0xff);
	__u8 type = v >> 24, flags = v >> 32;

	return type == 1 && flags & 4 && !(flags & ~0x2d) && len && len <= 16384 && !(v >> 40 & 0xffff);
}

// The start of a TLS record (RFC 8446, 5.1).
static __always_inline bool tls_record(__u64 v)
{
	__u8 type = v, major = v >> 8, minor = v >> 16;

	return type >= 20 && type <= 23 && major == 3 && minor <= 4;
}

#define W4(a, b, c, d) ((__u32)(a) << 24 | (__u32)(b) << 16 | (__u32)(c) << 8 | (__u32)(d))
#define PATH_SCAN 256

// 1 when a and b are the same, else 0, without a branch: the verifier follows both
// sides of each, for every byte of a path.
static __always_inline __u64 same(__u64 a, __u32 b)
{
	__u64 differ = a ^ b;

	asm volatile("" : "+r"(differ));
	return (differ - 1) >> 63;
}

// Whether a request line that is no POST may still be a call to a model:
// a part of its path begins with /res(ponses, ults), /run(s), /bat(ches),
// /rea(ltime), /pre(dictions), /mcp, /sse, /ws, ends in -ws, or names a
// :gen(erate…) or :str(eam…) method.
// A function of its own and global, so that it is verified once, and without branches
// but those that end it: the verifier follows each of them through all that is left.
// So up to seven bytes behind the buffer are looked at too; at worst a head crosses.
__noinline int path_smells(__u64 buf, __u32 len)
{
	__u64 hit = 0, end = 0, word = 0;

	if (len > PATH_SCAN)
		len = PATH_SCAN;
	for (__u32 i = 0; i < PATH_SCAN; i += 8) {
		__u64 chunk = 0;

		if (i >= len)
			break;
		if (bpf_probe_read_user(&chunk, sizeof(chunk), (void *)(buf + i)))
			break;
		for (__u32 j = 0; j < 8; j++) {
			__u64 c = chunk & 0xff;

			chunk >>= 8;
			end |= same(c, '\r') | same(c, '\n');
			word = (word << 8 & 0xffffffff) | c;
			hit |= ~end &
			       (same(word, W4('/', 'r', 'e', 's')) |
				same(word, W4('/', 'r', 'u', 'n')) |
				same(word, W4('/', 'b', 'a', 't')) |
				same(word, W4('/', 'r', 'e', 'a')) |
				same(word, W4('/', 'p', 'r', 'e')) |
				same(word, W4('/', 'm', 'c', 'p')) |
				same(word, W4('/', 's', 's', 'e')) |
				same(word, W4(':', 'g', 'e', 'n')) |
				same(word, W4(':', 's', 't', 'r')) |
				same(word, W4('/', 'w', 's', ' ')) |
				same(word, W4('/', 'w', 's', '/')) |
				same(word, W4('/', 'w', 's', '?')) |
				same(word, W4('-', 'w', 's', '/')));
		}
		if (hit | end)
			return hit;
	}
	return 0;
}
