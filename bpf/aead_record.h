// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// One TLS record on the thread that seals or opens it, from its header to its last byte.
#pragma once

#include "aead_join.h"

// The context of an AES-GCM operation in BoringSSL and AWS-LC (GCM128_CONTEXT).
struct gcm {
	__u64 counter[2];
	__u64 key_stream[2]; // of the last block that was not whole
	__u64 mask[2];
	__u64 aad; // bytes
	__u64 message;
	__u64 acc[2];
};

#define COUNTER_TO_ACC 64

static __always_inline __u64 big_endian(__u64 v)
{
	return __builtin_bswap64(v);
}

// Reads the header of a TLS record from the first block of what is authenticated:
// the header itself in TLS 1.3, sequence number and header in TLS 1.2. False for
// everything else that is encrypted with AES-GCM.
static __always_inline bool read_header(struct record *r, __u64 lo, __u64 hi)
{
	__u64 a = big_endian(lo), b = big_endian(hi);

	if (a >> 40 == 0x170303 && !(a & 0xffffff) && !b) {
		__u32 len = a >> 24 & 0xffff;

		if (len <= TAG || len > MAX_PLAIN + TAG)
			return false;
		r->tls13 = 1;
		r->type = TYPE_DATA;
		r->total = len - TAG;
		return true;
	}
	if ((b >> 40 & 0xffff) == 0x0303 && !(b & 0xffffff)) {
		__u32 len = b >> 24 & 0xffff;

		r->type = b >> 56;
		if (r->type < 20 || r->type > 23 || !len || len > MAX_PLAIN)
			return false;
		r->tls13 = 0;
		r->total = len;
		return true;
	}
	return false;
}

// An alert was opened. close_notify (RFC 8446, 6.1) is the end of what the peer sends.
static __noinline int alerted(struct plain *p)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct xfer x = {
		.key = {.key = p->sock, .tgid = id >> 32, .source = p->source},
		.time = p->time,
		.tid = id,
		.dir = DIR_READ,
	};
	__u8 alert[2] = {0, 255};

	if (p->kernel ? bpf_probe_read_kernel(alert, 2, (void *)p->buf) :
			bpf_probe_read_user(alert, 2, (void *)p->buf))
		return 0;
	x.conn = bpf_map_lookup_elem(&conns, &x.key);
	if (alert[1] == 0 && x.conn && x.conn->flags & CONN_CROSSED)
		signal_end(&x, KIND_EOF);
	return 0;
}

// A record was opened: its plaintext is n bytes at buf, of this type, 0 if that could
// not be read.
static __always_inline int opened(struct record *r, __u32 tgid, __u64 buf, bool kernel, __u32 n, __u8 type)
{
	struct wire_key at = {.sock = r->sock, .tgid = tgid};
	struct wire *w = r->sock ? bpf_map_lookup_elem(&wires, &at) : NULL;
	struct plain *p = &r->plain;

	if (!w)
		return type == TYPE_DATA || !type ? unjoined(r->source, n) : 0;
	struct stream *s = &w->streams[DIR_READ];

	*p = (struct plain){
		.sock = r->sock,
		.buf = buf,
		.time = bpf_ktime_get_ns(),
		.n = n,
		.source = r->source,
		.dir = DIR_READ,
		.kernel = kernel,
	};
	if (w->source && s->taken && r->before > s->taken)
		p->missing = r->before - s->taken;
	p->counted = s->gap;
	s->gap = 0;
	s->taken = r->before + r->total + TAG + (r->tls13 || r->chacha ? 0 : EXPLICIT_NONCE);
	if (!type && w->source) { // it could not be read
		p->missing += n;
		p->n = 0;
	}
	if (type != TYPE_DATA)
		p->n = 0;
	if (type == TYPE_DATA || p->missing || p->counted)
		deliver(p);
	if (type == TYPE_ALERT && n == 2)
		alerted(p);
	return 0;
}

// The length of a TLS 1.3 record's data, which its type and then any padding with
// zeros follow; n: with all of that. Returns the type, 0 when there is none.
static __always_inline __u8 inner_type(__u64 buf, __u32 *n)
{
	__u8 type = 0;

	for (int i = 0; i < 256 && *n; i++) {
		--*n;
		if (bpf_probe_read_user(&type, 1, (void *)(buf + *n)) || type)
			break;
	}
	return type;
}

// The types of handshake messages (RFC 8446, 4; RFC 8879) that are sealed, but for
// EncryptedExtensions: NewSessionTicket, Certificate, CertificateRequest, CertificateVerify,
// Finished, KeyUpdate, CompressedCertificate.
#define SEALED_MESSAGES (1 << 4 | 1 << 11 | 1 << 13 | 1 << 15 | 1 << 20 | 1 << 24 | 1 << 25)
#define ENCRYPTED_EXTENSIONS 8

// Whether the n bytes of a slot are handshake messages, each with its type and its length;
// or begin with EncryptedExtensions, which a server's certificates follow over any number
// of records.
static __noinline bool is_handshake(const struct slot *s, __u32 n)
{
	__u64 at = 0;
	__u32 length;
	__u8 type;

	for (int i = 0; i < 4; i++) {
		asm volatile("" : "+r"(at)); // else the compiler moves the check to where it is no use
		if (at > MAX_PLAIN - 4 || at + 4 > n)
			return false;
		type = s->plain[at];
		length = (__u32)s->plain[at + 1] << 16 | (__u32)s->plain[at + 2] << 8 | s->plain[at + 3];
		at += 4 + length;
		if (type == ENCRYPTED_EXTENSIONS && at <= n)
			return true;
		if (type > 31 || !(SEALED_MESSAGES >> type & 1))
			return false;
		if (at == n)
			return true;
	}
	return false;
}

// ChaCha20 leaves no key stream behind to read a sealed record's type with. What is no
// data is told by its form: an alert (RFC 8446, 6) is two bytes.
static __always_inline __u8 guess_type(struct record *r, __u32 n)
{
	__u32 index = r->ticket % SLOTS;
	struct slot *s = bpf_map_lookup_elem(&slots, &index);

	if (!s)
		return 0;
	if (n == 2 && (s->plain[0] == 1 || s->plain[0] == 2))
		return TYPE_ALERT;
	return is_handshake(s, n) ? TYPE_HANDSHAKE : TYPE_DATA;
}

// A record's bytes are done: of a sealed one the ciphertext is there, of an opened
// one the plaintext.
__noinline int record_done(struct record *r, __u64 key_stream)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32, n;
	__u64 prefix = 0;
	__u8 type;

	if (!r)
		return 0;
	n = r->total;
	type = r->type;
	r->stage = STAGE_NONE;
	if (r->dir == DIR_READ) {
		if (r->tls13)
			type = inner_type(r->out, &n);
		return opened(r, tgid, r->out, false, n, type);
	}
	if (bpf_probe_read_user(&prefix, n < 8 ? n & 7 : 8, (void *)r->out))
		return 0;
	if (r->tls13 && r->in == r->out) {
		__u32 index = r->ticket % SLOTS;
		struct slot *s = bpf_map_lookup_elem(&slots, &index);
		__u64 last = n - 1;

		asm volatile("" : "+r"(last)); // else the compiler moves the check to where it is no use
		if (!s || last >= MAX_PLAIN)
			return 0;
		type = s->plain[last];
		n--;
	} else if (r->tls13 && r->chacha) {
		n--;
		type = guess_type(r, n);
	} else if (r->tls13) {
		__u8 sealed = 0, mask = 0;

		// The type is sealed behind the data, by the key stream of its block.
		n--;
		if (bpf_probe_read_user(&sealed, 1, (void *)(r->out + n)) ||
		    bpf_probe_read_user(&mask, 1, (void *)(key_stream + (n & 15))))
			return 0;
		type = sealed ^ mask;
	}
	seal_waits(r, tgid, prefix, n, type);
	return 0;
}

// A record that is shorter than a block is done: its plaintext is in small, its
// ciphertext begins with prefix.
static __noinline int small_done(struct record *r, __u32 tgid, __u64 prefix)
{
	__u32 n = r->total;
	__u8 type = r->type;

	r->stage = STAGE_NONE;
	if (r->tls13) {
		n--;
		type = (n < 8 ? r->small[0] >> (n & 7) * 8 : r->small[1] >> (n & 7) * 8);
	}
	// Which way it went is known by where it came from.
	if (find_arrival(r, tgid, prefix))
		return opened(r, tgid, address_of(&r->small), true, n, type);
	r->time = bpf_ktime_get_ns();
	if (keep_plain(r, address_of(&r->small), 16, true))
		seal_waits(r, tgid, prefix, n, type);
	return 0;
}

// A record that is shorter than a block passes no function as a whole, but what was
// added to the accumulator is its ciphertext, which begins with *prefix, and the block's
// key stream is kept.
static __noinline int read_small(struct record *r, __u64 acc, __u64 *prefix)
{
	struct gcm g = {};
	__u32 n = r->total;

	if (n > 16 || bpf_probe_read_user(&g, sizeof(g), (void *)(acc - COUNTER_TO_ACC)))
		return 0;
	// The context says itself what it is: the lengths must be this record's.
	if (g.message != n || g.aad != (r->tls13 ? 5 : 13))
		return 0;
	__u64 lo = g.acc[0] ^ r->first[0], hi = g.acc[1] ^ r->first[1];

	r->small[0] = low_bytes(lo ^ g.key_stream[0], n);
	r->small[1] = n > 8 ? low_bytes(hi ^ g.key_stream[1], n - 8) : 0;
	*prefix = lo;
	return 1;
}

// A process that seals or opens TLS records has its sockets followed from here on.
static __always_inline void follow_sockets(__u32 tgid)
{
	__u8 yes = 1;

	if (!bpf_map_lookup_elem(&sealers, &tgid))
		bpf_map_update_elem(&sealers, &tgid, &yes, BPF_ANY);
}

// A record begins if the block at from is what authenticating one begins with.
static __noinline int record_begins(__u64 from, __u64 acc, __u32 source)
{
	__u64 id = bpf_get_current_pid_tgid(), v[2];
	struct record next = {};

	if (bpf_probe_read_user(v, sizeof(v), (void *)from) || !read_header(&next, v[0], v[1]))
		return 0;
	next.acc = acc;
	next.source = source;
	next.stage = STAGE_HEADER;
	bpf_map_update_elem(&records, &id, &next, BPF_ANY);
	follow_sockets(id >> 32);
	return 1;
}
