// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// TLS that is linked in and stripped, read at the assembly that BoringSSL, AWS-LC
// and ring encrypt with. What these functions are given does not say that it is
// TLS, nor whose; three things do:
//
//  - GHASH begins with the record's header, so the accumulator holds it in the open
//    when it is first multiplied: its length and its type, of every record.
//  - The function that seals or opens has the plaintext as its input or its output.
//    Records too short for it are had from the last block's key stream.
//  - The ciphertext itself leads to the socket: what was sealed is sent, what is
//    opened was read, by the same process. So plaintext waits in a slot until its
//    ciphertext is sent, and a read leaves behind where each record came from.
#include "aead.h"
#include "registers.h"

char __license[] SEC("license") = "Dual BSD/GPL";

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

static const struct cursor no_cursor;
static const struct wire no_wire;

static __always_inline __u64 low_bytes(__u64 v, __u32 n)
{
	return n >= 8 ? v : v & ((1ULL << ((n & 7) * 8)) - 1);
}

static __always_inline __u64 big_endian(__u64 v)
{
	return __builtin_bswap64(v);
}

// The address of something of ours as a plain number.
static __always_inline __u64 address_of(const void *p)
{
	__u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &p);
	return address;
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

static __always_inline struct cipher_key cipher_key(const struct record *r, __u32 tgid, __u64 prefix)
{
	return (struct cipher_key){
		.prefix = low_bytes(prefix, r->total),
		.tgid = tgid,
		.total = r->total,
		.at = r->tls13 || r->chacha ? 0 : EXPLICIT_NONCE,
	};
}

// The connection of a record's socket; NULL when its state cannot be kept.
static __noinline struct conn *plain_conn(struct plain *p, const struct conn_key *key)
{
	struct wire_key at = {.sock = p->sock, .tgid = key->tgid};
	struct wire *w = bpf_map_lookup_elem(&wires, &at);
	struct conn *c = bpf_map_lookup_elem(&conns, key);

	if (!w || (c && c->ino == w->ino))
		return w ? c : NULL;
	c = conn_new(key, !p->fresh);
	if (!c)
		return NULL;
	c->ino = w->ino;
	set_peer(c, (struct sock *)p->sock);
	w->source = p->source;
	return c;
}

// Adds bytes of plaintext to their connection. It is no static function, so that it is
// verified once, not for each way to it.
__noinline int deliver(struct plain *p)
{
	__u64 id = bpf_get_current_pid_tgid();

	if (!p)
		return 0;
	struct xfer x = {
		.key = {.key = p->sock, .tgid = id >> 32, .source = p->source},
		.counters = counters_of(p->source),
		.time = p->time,
		.buf = p->buf,
		.seg_left = p->n,
		.n = p->n,
		.tid = id,
		.dir = p->dir,
		.kernel = p->kernel,
	};

	if (!x.counters)
		return 0;
	if (!p->fresh) {
		__sync_fetch_and_add(&x.counters->calls, 1);
		__sync_fetch_and_add(&x.counters->seen, p->n);
	}
	x.conn = plain_conn(p, &x.key);
	if (!x.conn) {
		__sync_fetch_and_add(&x.counters->dropped[GAP_STATE], p->n);
		return 0;
	}
	if (p->missing || p->counted) {
		ignore_held(&x);
		x.conn->frames[x.dir & 1].lost = 1;
		leave_out(&x, p->counted, GAP_UNJOINED);
		__sync_fetch_and_add(&x.counters->seen, p->missing);
		drop(&x, p->missing, GAP_UNJOINED);
	}
	if (p->n)
		on_bytes(&x);
	return 0;
}

// Bytes of which it cannot be told whose they are.
static __always_inline int unjoined(__u32 source, __u64 n)
{
	struct counters *c = counters_of(source);

	if (!c)
		return 0;
	__sync_fetch_and_add(&c->calls, 1);
	__sync_fetch_and_add(&c->seen, n);
	__sync_fetch_and_add(&c->dropped[GAP_UNJOINED], n);
	return 0;
}

// A slot is one task's while it is filled or read, however long that is preempted.
static __always_inline bool take(struct slot *s)
{
	return !__sync_val_compare_and_swap(&s->taken, 0, 1);
}

static __always_inline void give(struct slot *s)
{
	__sync_fetch_and_and(&s->taken, 0);
}

// Keeps the plaintext of a record that is about to be sealed. One that is not kept is
// missed when its ciphertext is sent.
static __always_inline bool keep_plain(struct record *r, __u64 from, __u32 n, bool kernel)
{
	__u32 zero = 0, index;
	__u64 *next = bpf_map_lookup_elem(&tickets, &zero), size = n;
	struct slot *s;

	if (!next || n > MAX_PLAIN)
		return false;
	r->ticket = __sync_fetch_and_add(next, 1) + 1;
	index = r->ticket % SLOTS;
	s = bpf_map_lookup_elem(&slots, &index);
	if (!s || !take(s))
		return false;
	if (s->waiting) // it was never seen to be sent
		unjoined(s->source, s->waiting);
	s->waiting = 0;
	s->ticket = 0;
	asm volatile("" : "+r"(size)); // else the compiler moves the check to where it is no use
	if (size <= MAX_PLAIN && !(kernel ? bpf_probe_read_kernel(s->plain, size, (void *)from) :
					    bpf_probe_read_user(s->plain, size, (void *)from)))
		s->ticket = r->ticket;
	give(s);
	return s->ticket == r->ticket;
}

static __noinline int seal_waits(struct record *r, __u32 tgid, __u64 prefix, __u32 len, __u8 type)
{
	struct cipher_key key = cipher_key(r, tgid, prefix);
	__u32 index = r->ticket % SLOTS;
	struct slot *slot = bpf_map_lookup_elem(&slots, &index);
	struct sealed s = {
		.ticket = r->ticket,
		.time = r->time,
		.source = r->source,
		.len = len,
		.type = type,
	}, *other;

	if (slot && slot->ticket == r->ticket && type == TYPE_DATA) {
		slot->source = r->source;
		slot->waiting = len;
	}
	// Of very short records two may be known by the same. Which one is sent cannot be
	// told then, unless the other's plaintext is gone.
	other = bpf_map_lookup_elem(&seals, &key);
	if (other) {
		index = other->ticket % SLOTS;
		slot = bpf_map_lookup_elem(&slots, &index);
		if (slot && slot->ticket == other->ticket) {
			s.unsure = 1;
			s.alike = other->alike + 1;
		}
	}
	bpf_map_update_elem(&seals, &key, &s, BPF_ANY);
	return 0;
}

// Finds the socket that a record's ciphertext was read from.
static __always_inline bool find_arrival(struct record *r, __u32 tgid, __u64 prefix)
{
	struct cipher_key key = cipher_key(r, tgid, prefix);
	struct arrival *a = bpf_map_lookup_elem(&arrivals, &key);

	r->sock = 0;
	if (!a)
		return false;
	r->sock = a->sock;
	r->before = a->before;
	bpf_map_delete_elem(&arrivals, &key);
	return r->sock;
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

// GHASH multiplies its accumulator: first with the header of a record in it, last
// when all of the record is in it.
static __always_inline int on_multiply(__u64 acc, __u32 source)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u32 tgid = id >> 32;
	struct record *r = bpf_map_lookup_elem(&records, &id);
	__u64 prefix = 0;

	if (is_self(tgid))
		return 0;
	if (r && r->acc == acc && !r->chacha && r->stage == STAGE_BYTES)
		return record_done(r, acc - COUNTER_TO_ACC + 16);
	if (r && r->acc == acc && r->stage == STAGE_HEADER && read_small(r, acc, &prefix))
		return small_done(r, tgid, prefix);
	if (r)
		r->stage = STAGE_NONE;
	record_begins(acc, acc, source);
	return 0;
}

SEC("uprobe/gcm_gmult")
int aead_multiply_boringssl(struct pt_regs *ctx)
{
	return on_multiply(ARG1(ctx), SOURCE_AEAD_BORINGSSL);
}

SEC("uprobe/gcm_gmult")
int aead_multiply_awslc(struct pt_regs *ctx)
{
	return on_multiply(ARG1(ctx), SOURCE_AEAD_AWSLC);
}

// At the RET instruction of the same function.
SEC("uprobe/gcm_gmult_end")
int aead_multiplied(struct pt_regs *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct record *r = bpf_map_lookup_elem(&records, &id);

	if (r && r->stage == STAGE_HEADER && r->acc == ARG1(ctx))
		bpf_probe_read_user(r->first, sizeof(r->first), (void *)r->acc);
	return 0;
}

// The first function that works on a record's bytes, all of which are there.
static __always_inline int on_cipher(struct record *r, __u32 tgid, __u64 in, __u64 out, __u8 dir)
{
	__u64 prefix = 0;

	r->stage = STAGE_BYTES;
	r->in = in;
	r->out = out;
	r->dir = dir;
	if (dir == DIR_WRITE) {
		r->time = bpf_ktime_get_ns();
		if (!keep_plain(r, in, in == out ? r->total : r->total - r->tls13, false))
			r->stage = STAGE_NONE;
		return 0;
	}
	if (bpf_probe_read_user(&prefix, r->total < 8 ? r->total & 7 : 8, (void *)in))
		return 0;
	find_arrival(r, tgid, prefix);
	return 0;
}

// in, out, len, key, counter: the counter is the beginning of the context, but for
// ring's, which has none and works on a record at once.
static __always_inline bool works_on(struct record *r, struct pt_regs *ctx)
{
	if (r->stage != STAGE_HEADER)
		return false;
	return r->source == SOURCE_AEAD_RING ? ARG3(ctx) <= r->total : ARG5(ctx) == r->acc - COUNTER_TO_ACC;
}

static __always_inline int on_update(struct pt_regs *ctx, __u8 dir)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct record *r = bpf_map_lookup_elem(&records, &id);

	if (!r || !works_on(r, ctx))
		return 0;
	return on_cipher(r, id >> 32, ARG1(ctx), ARG2(ctx), dir);
}

SEC("uprobe/aes_gcm_enc_update")
int aead_seal(struct pt_regs *ctx)
{
	return on_update(ctx, DIR_WRITE);
}

SEC("uprobe/aes_gcm_dec_update")
int aead_open(struct pt_regs *ctx)
{
	return on_update(ctx, DIR_READ);
}

// ring moves its accumulator about on the stack, so a record is its thread's. The
// accumulator is zero before the header. Up to 0.17.13 a block is added to it and
// then multiplied: what is behind the last whole block, then the lengths.
SEC("uprobe/gcm_gmult")
int aead_multiply_ring(struct pt_regs *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct record *r = bpf_map_lookup_elem(&records, &id);

	if (is_self(id >> 32) || record_begins(ARG1(ctx), 0, SOURCE_AEAD_RING))
		return 0;
	if (!r || r->source != SOURCE_AEAD_RING || r->stage == STAGE_NONE)
		return 0;
	if (r->total % 16 && !r->tail) {
		r->tail = 1;
		r->hashed = r->stage == STAGE_HEADER; // before it was opened
		return 0;
	}
	if (r->stage == STAGE_BYTES)
		return record_done(r, 0);
	return r->stage == STAGE_BLOCK ? small_done(r, id >> 32, r->first[0]) : 0;
}

// accumulator, table, in, bytes. From 0.17.14 on it is given each block in the open,
// the lengths last.
SEC("uprobe/gcm_ghash")
int aead_hash_ring(struct pt_regs *ctx)
{
	__u64 id = bpf_get_current_pid_tgid(), v[2];
	struct record *r = bpf_map_lookup_elem(&records, &id);

	if (is_self(id >> 32) || bpf_probe_read_user(v, sizeof(v), (void *)ARG1(ctx)))
		return 0;
	if (!v[0] && !v[1]) {
		if (r)
			r->stage = STAGE_NONE;
		if (ARG4(ctx) == 16)
			record_begins(ARG3(ctx), 0, SOURCE_AEAD_RING);
		return 0;
	}
	if (!r || r->source != SOURCE_AEAD_RING || bpf_probe_read_user(v, sizeof(v), (void *)ARG3(ctx)))
		return 0;
	if (ARG4(ctx) == 16 && v[0] == big_endian((r->tls13 ? 5 : 13) * 8) &&
	    v[1] == big_endian((__u64)r->total * 8)) {
		if (r->stage == STAGE_BYTES)
			return record_done(r, 0);
		return r->stage == STAGE_BLOCK ? small_done(r, id >> 32, r->first[0]) : 0;
	}
	if (r->stage == STAGE_HEADER && !r->hashed) {
		r->hashed = ARG3(ctx);
		r->first[0] = v[0];
	}
	return 0;
}

// accumulator, table, in, bytes
SEC("uprobe/gcm_ghash")
int aead_hash(struct pt_regs *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct record *r = bpf_map_lookup_elem(&records, &id);

	if (r && r->stage == STAGE_HEADER && r->acc == ARG1(ctx) && !r->hashed)
		r->hashed = ARG3(ctx);
	return 0;
}

// in, out, blocks, key, counter. It is the same either way, but what is opened is
// hashed before, what is sealed after it.
SEC("uprobe/aes_ctr32_encrypt_blocks")
int aead_counter(struct pt_regs *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct record *r = bpf_map_lookup_elem(&records, &id);

	if (!r || !works_on(r, ctx))
		return 0;
	if (r->source != SOURCE_AEAD_RING || r->total >= 16)
		return on_cipher(r, id >> 32, ARG1(ctx), ARG2(ctx),
				 r->hashed && r->hashed == ARG1(ctx) ? DIR_READ : DIR_WRITE);
	// A copy of a record that is shorter than a block.
	r->stage = STAGE_BLOCK;
	r->out = ARG2(ctx);
	if (r->hashed)
		bpf_probe_read_user(r->first, sizeof(r->first), (void *)ARG1(ctx));
	else
		bpf_probe_read_user(r->small, sizeof(r->small), (void *)ARG1(ctx));
	return 0;
}

// The return of the same function, of ring's.
SEC("uretprobe/aes_ctr32_encrypt_blocks")
int aead_counted(struct pt_regs *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct record *r = bpf_map_lookup_elem(&records, &id);

	if (!r || r->stage != STAGE_BLOCK)
		return 0;
	if (r->hashed)
		bpf_probe_read_user(r->small, sizeof(r->small), (void *)r->out);
	else
		bpf_probe_read_user(r->first, sizeof(r->first), (void *)r->out);
	return 0;
}

// in, bits, out, accumulator, …: whole blocks, on arm64.
static __always_inline int on_kernel(struct pt_regs *ctx, __u8 dir)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct record *r = bpf_map_lookup_elem(&records, &id);

	if (!r || r->stage != STAGE_HEADER)
		return 0;
	if (r->source == SOURCE_AEAD_RING ? ARG2(ctx) > (__u64)r->total * 8 : ARG4(ctx) != r->acc)
		return 0;
	return on_cipher(r, id >> 32, ARG1(ctx), ARG3(ctx), dir);
}

SEC("uprobe/aes_gcm_enc_kernel")
int aead_seal_kernel(struct pt_regs *ctx)
{
	return on_kernel(ctx, DIR_WRITE);
}

SEC("uprobe/aes_gcm_dec_kernel")
int aead_open_kernel(struct pt_regs *ctx)
{
	return on_kernel(ctx, DIR_READ);
}

// key, context, &left, in, bytes, out
static __always_inline int on_update_all(struct pt_regs *ctx, __u8 dir)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct record *r = bpf_map_lookup_elem(&records, &id);

	if (!r || r->stage != STAGE_HEADER || ARG2(ctx) != r->acc - COUNTER_TO_ACC)
		return 0;
	return on_cipher(r, id >> 32, ARG4(ctx), ARG6(ctx), dir);
}

SEC("uprobe/aes_gcm_encrypt")
int aead_seal_all(struct pt_regs *ctx)
{
	return on_update_all(ctx, DIR_WRITE);
}

SEC("uprobe/aes_gcm_decrypt")
int aead_open_all(struct pt_regs *ctx)
{
	return on_update_all(ctx, DIR_READ);
}

// out, in, bytes, header, bytes of header, …: ChaCha20-Poly1305, all of a record.
static __always_inline int on_chacha(struct pt_regs *ctx, __u32 source, __u8 dir)
{
	__u64 id = bpf_get_current_pid_tgid(), v[2] = {}, bytes = ARG3(ctx);
	__u32 tgid = id >> 32, ad = ARG5(ctx);
	struct record next = {.source = source, .chacha = 1}, *r;

	if (is_self(tgid) || (ad != 5 && ad != 13))
		return 0;
	if (ad == 5 ? bpf_probe_read_user(v, 5, (void *)ARG4(ctx)) :
		      bpf_probe_read_user(v, 13, (void *)ARG4(ctx)))
		return 0;
	if (!read_header(&next, v[0], v[1]) || (bytes != next.total && bytes != next.total - next.tls13))
		return 0;
	bpf_map_update_elem(&records, &id, &next, BPF_ANY);
	r = bpf_map_lookup_elem(&records, &id);
	if (!r)
		return 0;
	follow_sockets(tgid);
	return on_cipher(r, tgid, ARG2(ctx), ARG1(ctx), dir);
}

SEC("uprobe/chacha20_poly1305_seal")
int aead_chacha_seal_boringssl(struct pt_regs *ctx)
{
	return on_chacha(ctx, SOURCE_AEAD_BORINGSSL, DIR_WRITE);
}

SEC("uprobe/chacha20_poly1305_open")
int aead_chacha_open_boringssl(struct pt_regs *ctx)
{
	return on_chacha(ctx, SOURCE_AEAD_BORINGSSL, DIR_READ);
}

SEC("uprobe/chacha20_poly1305_seal")
int aead_chacha_seal_awslc(struct pt_regs *ctx)
{
	return on_chacha(ctx, SOURCE_AEAD_AWSLC, DIR_WRITE);
}

SEC("uprobe/chacha20_poly1305_seal")
int aead_chacha_seal_ring(struct pt_regs *ctx)
{
	return on_chacha(ctx, SOURCE_AEAD_RING, DIR_WRITE);
}

SEC("uprobe/chacha20_poly1305_open")
int aead_chacha_open_ring(struct pt_regs *ctx)
{
	return on_chacha(ctx, SOURCE_AEAD_RING, DIR_READ);
}

SEC("uprobe/chacha20_poly1305_open")
int aead_chacha_open_awslc(struct pt_regs *ctx)
{
	return on_chacha(ctx, SOURCE_AEAD_AWSLC, DIR_READ);
}

SEC("uretprobe/chacha20_poly1305")
int aead_chacha_end(struct pt_regs *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct record *r = bpf_map_lookup_elem(&records, &id);

	if (!r || !r->chacha || r->stage != STAGE_BYTES)
		return 0;
	return record_done(r, 0);
}

// The start of a record has passed through a socket. Returns whether c->p is to be
// delivered.
static __noinline int on_wire(struct cursor *c, struct wire *w, struct stream *s)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u64 head = s->start[0], prefix = s->start[1], behind = s->start[2];
	__u8 type = head >> 24;
	__u32 len = (head >> 48 & 0xff) << 8 | head >> 56;
	struct record r = {.tls13 = 1, .total = len - TAG};

	if (len <= TAG || (type != TYPE_DATA && type != TYPE_HANDSHAKE && type != TYPE_ALERT))
		return 0;
	for (int i = 0; i < 2; i++) {
		struct cipher_key key = cipher_key(&r, id >> 32, prefix);

		if (c->x.dir == DIR_READ) {
			struct arrival a = {.sock = c->x.key.key, .before = s->sum}, *other;

			other = bpf_map_lookup_elem(&arrivals, &key);
			if (other && other->sock != a.sock)
				a.sock = 0;
			bpf_map_update_elem(&arrivals, &key, &a, BPF_ANY);
		} else {
			struct sealed *found = bpf_map_lookup_elem(&seals, &key);

			if (found) {
				struct sealed done = *found;
				struct plain p = {
					.sock = c->x.key.key,
					.time = done.time,
					.n = done.type == TYPE_DATA || done.unsure ? done.len : 0,
					.source = done.source,
					.dir = DIR_WRITE,
					.kernel = 1,
					.fresh = done.type == TYPE_HANDSHAKE,
					.counted = s->gap,
				};
				__u32 index = done.ticket % SLOTS;
				struct slot *slot = bpf_map_lookup_elem(&slots, &index);

				if (done.alike)
					found->alike--;
				else
					bpf_map_delete_elem(&seals, &key);
				if (!slot || (done.type != TYPE_DATA && done.type != TYPE_HANDSHAKE && !done.unsure))
					return 0;
				if (take(slot))
					p.slot = index + 1;
				if (p.slot && slot->ticket == done.ticket && !done.unsure) {
					slot->waiting = 0;
				} else { // another record is there by now, or may be
					if (p.slot)
						p.counted += p.n;
					else
						p.missing = p.n;
					p.n = 0;
				}
				p.buf = address_of(slot->plain);
				c->p = p;
				s->gap = 0;
				return 1;
			}
		}
		// What it would be in TLS 1.2.
		if (len <= TAG + EXPLICIT_NONCE)
			break;
		r.tls13 = 0;
		r.total = len - TAG - EXPLICIT_NONCE;
		prefix = behind;
	}
	if (c->x.dir == DIR_WRITE && w->source && type == TYPE_DATA) {
		c->p = (struct plain){
			.sock = c->x.key.key,
			.time = c->x.time,
			.missing = len - TAG,
			.counted = s->gap,
			.source = w->source,
			.dir = DIR_WRITE,
		};
		s->gap = 0;
		return 1;
	}
	return 0;
}

// A stream that was lost is picked up where a call's bytes begin with the header of a
// record of data.
static __always_inline bool found_again(struct cursor *c, struct stream *s)
{
	__u8 h[8] = {};

	if (c->x.seg_left < TLS_HEADER || bpf_probe_read_user(h, TLS_HEADER, (void *)c->x.buf))
		return false;
	if (h[0] != TYPE_DATA || h[1] != 3 || h[2] != 3 ||
	    ((__u32)h[3] << 8 | h[4]) > MAX_PLAIN + TAG + EXPLICIT_NONCE)
		return false;
	s->gap += s->unseen;
	s->unseen = 0;
	s->lost = 0;
	return true;
}

static __always_inline void pass(struct cursor *c, __u32 len)
{
	c->x.buf += len;
	c->x.seg_left -= len;
	c->x.n -= len;
}

enum progress {
	GOES_ON,
	FOUND, // c->p is to be delivered
	ENDS,
};

// Takes some of the call's bytes as part of the socket's stream of records.
static __noinline enum progress take_some(struct cursor *c)
{
	struct wire_key key = {.sock = c->x.key.key, .tgid = c->x.key.tgid};
	struct wire *w = bpf_map_lookup_elem(&wires, &key);
	enum progress progress = GOES_ON;
	struct stream *s;
	__u32 len, have;

	if (!w || !c->x.n)
		return ENDS;
	s = &w->streams[c->x.dir & 1];
	if (!c->x.seg_left) {
		if (!c->x.iov) {
			c->x.n = 0;
			return ENDS;
		}
		next_segment(&c->x);
		return GOES_ON;
	}
	if (c->skip) {
		len = c->skip < c->x.seg_left ? c->skip : c->x.seg_left;
		c->skip -= len;
		pass(c, len);
		return GOES_ON;
	}
	if (s->lost && !found_again(c, s))
		return ENDS;
	len = s->have < TLS_HEADER ? TLS_HEADER - s->have :
	      s->have < s->want	   ? s->want - s->have :
				     s->left;
	if (len > c->x.seg_left)
		len = c->x.seg_left;
	if (len > c->x.n)
		len = c->x.n;
	have = *(volatile __u8 *)&s->have; // anew, else Linux 6.1 follows what cannot be
	if (have < TLS_HEADER || have < s->want) {
		__u64 at = have, size = len;

		asm volatile("" : "+r"(at), "+r"(size));
		if (at > 20 || size > 21 || // have never more than 21 between them
		    bpf_probe_read_user((__u8 *)s->start + 3 + at, size, (void *)c->x.buf))
			return ENDS;
		s->have = have + len;
		if (have >= TLS_HEADER)
			s->left -= len;
	} else {
		s->left -= len;
	}
	pass(c, len);
	if (c->x.dir == DIR_WRITE)
		s->ahead += len;
	if (have < TLS_HEADER && s->have == TLS_HEADER) {
		__u64 head = s->start[0];

		s->left = (head >> 48 & 0xff) << 8 | head >> 56;
		if (!tls_record(head >> 24) || !s->left ||
		    s->left > MAX_PLAIN + TAG + EXPLICIT_NONCE)
			return ENDS;
		s->want = TLS_HEADER + (s->left < 16 ? s->left : 16);
	} else if (have >= TLS_HEADER && have < s->want && s->have == s->want) {
		if (on_wire(c, w, s))
			progress = FOUND;
	}
	if (s->have >= TLS_HEADER && s->have == s->want && !s->left) {
		__u64 head = s->start[0];

		s->sum += (head >> 48 & 0xff) << 8 | head >> 56;
		s->have = 0;
		s->want = 0;
	}
	return progress;
}

// One step of a call's bytes. Returns whether it is the last. It is no static function, so
// that it is verified once, not for each step.
__noinline int follow(struct cursor *c)
{
	enum progress progress;
	struct slot *slot;
	__u32 index;

	if (!c)
		return 1;
	progress = take_some(c);
	if (progress == FOUND) {
		deliver(&c->p);
		index = c->p.slot - 1;
		slot = bpf_map_lookup_elem(&slots, &index);
		if (slot)
			give(slot);
	}
	return progress == ENDS;
}

// The system calls that move bytes through a socket, and which way.
static __always_inline bool moves(__u32 nr, __u8 *dir)
{
	switch (nr) {
	case NR_WRITE:
	case NR_WRITEV:
	case NR_SENDTO:
	case NR_SENDMSG:
		*dir = DIR_WRITE;
		return true;
	case NR_READ:
	case NR_READV:
	case NR_RECVFROM:
	case NR_RECVMSG:
		*dir = DIR_READ;
		return true;
	}
	return false;
}

// The state of the call's socket, if its process seals or opens records; NULL for every
// other.
static __noinline struct wire *wire_of(struct pt_regs *regs, struct wire_key *key)
{
	struct tcp t = {};
	struct wire *w;

	if (!find_tcp(SYSCALL_ARG1(regs), &t))
		return NULL;
	key->sock = (__u64)t.sk;
	w = bpf_map_lookup_elem(&wires, key);
	if (w && w->ino == t.ino)
		return w;
	bpf_map_update_elem(&wires, key, &no_wire, BPF_ANY);
	w = bpf_map_lookup_elem(&wires, key);
	if (!w)
		return NULL;
	w->ino = t.ino;
	for (__u32 d = 0; d < 2; d++)
		w->streams[d].seq = sequence(t.sk, d);
	return w;
}

// The bytes of a system call: n, or with ~0 all that it was given.
static __noinline struct cursor *cursor_of(struct pt_regs *regs, __u32 nr, const struct wire_key *key,
					   __u8 dir, __u64 n)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct cursor *c;

	bpf_map_update_elem(&cursors, &id, &no_cursor, BPF_ANY);
	c = bpf_map_lookup_elem(&cursors, &id);
	if (!c)
		return NULL;
	c->x.key.key = key->sock;
	c->x.key.tgid = key->tgid;
	c->x.dir = dir;
	c->x.n = n;
	c->x.time = bpf_ktime_get_ns();
	c->x.buf = SYSCALL_ARG2(regs);
	if (nr == NR_SENDMSG || nr == NR_RECVMSG) {
		struct user_msghdr msg = {};

		bpf_probe_read_user(&msg, sizeof(msg), (void *)c->x.buf);
		gather(&c->x, msg.msg_iov, msg.msg_iovlen);
	} else if (nr == NR_READV || nr == NR_WRITEV) {
		gather(&c->x, c->x.buf, SYSCALL_ARG3(regs));
	} else {
		if (n == ~0ULL)
			c->x.n = SYSCALL_ARG3(regs);
		c->x.seg_left = c->x.n;
	}
	return c;
}

// n more bytes of a stream are not followed. It is no stream of records from here on, or
// not yet: perhaps a later call's.
static __always_inline void lose(struct wire *w, __u8 dir, __u64 n)
{
	struct stream *s = &w->streams[dir & 1];

	s->have = s->want = s->left = 0;
	if (!w->source)
		return;
	s->lost = 1;
	s->unseen += n;
}

// Accounts for what was moved between the last call that was followed and this one, which
// has moved n bytes by now: by another system call, by io_uring or by another process.
static __always_inline void catch_up(struct wire *w, const struct wire_key *key, __u8 dir, __u32 n)
{
	struct stream *s = &w->streams[dir & 1];
	__u32 before = s->seq, now = sequence((void *)key->sock, dir), unseen = now - n - before;

	// What was followed and is not sent may be on its way, by another thread.
	if (dir == DIR_WRITE && s->ahead)
		return;
	s->seq = now;
	if (before && now && unseen && unseen < MAX_MISSED)
		lose(w, dir, unseen);
}

// The socket has taken n bytes.
static __always_inline void sent(struct wire *w, const struct wire_key *key, __u64 n)
{
	struct stream *s = &w->streams[DIR_WRITE];

	if (n > s->ahead) { // more than could be followed
		lose(w, DIR_WRITE, n - s->ahead);
		n = s->ahead;
	}
	s->seq = sequence((void *)key->sock, DIR_WRITE);
	s->ahead -= n;
}

// What is left of a call's bytes is not followed; of what it sends the part that the
// socket takes is counted then.
static __noinline int lose_rest(struct cursor *c)
{
	struct wire_key key = {.sock = c->x.key.key, .tgid = c->x.key.tgid};
	struct wire *w = bpf_map_lookup_elem(&wires, &key);

	if (w)
		lose(w, c->x.dir, c->x.dir == DIR_READ ? c->x.n : 0);
	return 0;
}

#define MAX_STEPS 4096

static __always_inline int follow_all(struct cursor *c)
{
	if (!c)
		return 0;
	for (__u32 i = 0; i < MAX_STEPS; i++)
		if (follow(c))
			break;
	if (c->x.n)
		lose_rest(c);
	return 0;
}

// A call is about to send: returns what is to be followed.
static __noinline struct cursor *on_sends(struct pt_regs *regs, __u32 nr)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct wire_key key = {.tgid = tgid};
	struct cursor *c;
	struct wire *w;
	__u8 dir;

	if (!moves(nr, &dir) || dir != DIR_WRITE || !bpf_map_lookup_elem(&sealers, &tgid))
		return NULL;
	w = wire_of(regs, &key);
	if (!w)
		return NULL;
	catch_up(w, &key, DIR_WRITE, 0);
	c = cursor_of(regs, nr, &key, DIR_WRITE, ~0ULL);
	if (c)
		c->skip = w->streams[DIR_WRITE].ahead;
	return c;
}

SEC("raw_tp/sys_enter")
int aead_sends(struct bpf_raw_tracepoint_args *ctx)
{
	return follow_all(on_sends((void *)ctx->args[0], ctx->args[1]));
}

SEC("tp/raw_syscalls/sys_enter")
int aead_sends_whole(struct perf_syscall *ctx)
{
	return follow_all(on_sends(user_regs(), ctx->nr));
}

// A call has moved bytes: returns what is to be followed.
static __noinline struct cursor *on_moved(struct pt_regs *regs, __s64 n)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32, nr;
	struct wire_key key = {.tgid = tgid};
	struct wire *w;
	__u64 flags = 0;
	__u8 dir;

	if (n <= 0 || !bpf_map_lookup_elem(&sealers, &tgid))
		return NULL;
	nr = SYSCALL_NR(regs);
	if (!moves(nr, &dir))
		return NULL;
	if (nr == NR_RECVFROM)
		flags = SYSCALL_ARG4(regs);
	if (nr == NR_RECVMSG)
		flags = SYSCALL_ARG3(regs);
	if (flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE))
		return NULL;
	w = wire_of(regs, &key);
	if (!w)
		return NULL;
	if (dir == DIR_WRITE) {
		sent(w, &key, n);
		return NULL;
	}
	catch_up(w, &key, DIR_READ, n);
	return cursor_of(regs, nr, &key, DIR_READ, n);
}

SEC("raw_tp/sys_exit")
int aead_moved(struct bpf_raw_tracepoint_args *ctx)
{
	return follow_all(on_moved((void *)ctx->args[0], ctx->args[1]));
}

SEC("tp/raw_syscalls/sys_exit")
int aead_moved_whole(struct perf_syscall *ctx)
{
	return follow_all(on_moved(user_regs(), ctx->ret));
}

// The bytes of a stream that were not followed and that no record came behind are its last.
static __always_inline void lost_at_end(struct xfer *x, struct wire *w, const struct wire_key *key, __u8 dir)
{
	struct stream *s = &w->streams[dir & 1];

	catch_up(w, key, dir, 0);
	x->dir = dir;
	if (s->gap + s->unseen)
		leave_out(x, s->gap + s->unseen, GAP_UNJOINED);
}

// A socket's last descriptor is closed: its connection is over.
static __always_inline int on_close(struct pt_regs *regs, __u32 nr)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u32 tgid = id >> 32;
	struct wire_key key = {.tgid = tgid};
	struct xfer x = {.tid = id, .key = {.tgid = tgid}};
	struct tcp t = {};
	struct wire *w;

	if (nr != NR_CLOSE || !bpf_map_lookup_elem(&sealers, &tgid) ||
	    !find_tcp(SYSCALL_ARG1(regs), &t) || !last_reference(t.file))
		return 0;
	key.sock = (__u64)t.sk;
	w = bpf_map_lookup_elem(&wires, &key);
	if (!w)
		return 0;
	x.key.key = key.sock;
	x.key.source = w->source;
	x.conn = bpf_map_lookup_elem(&conns, &x.key);
	if (x.conn && x.conn->ino == t.ino) {
		x.time = bpf_ktime_get_ns();
		lost_at_end(&x, w, &key, DIR_READ);
		lost_at_end(&x, w, &key, DIR_WRITE);
		conn_close(&x);
	}
	bpf_map_delete_elem(&wires, &key);
	return 0;
}

SEC("raw_tp/sys_enter")
int aead_closed(struct bpf_raw_tracepoint_args *ctx)
{
	return on_close((void *)ctx->args[0], ctx->args[1]);
}

SEC("tp/raw_syscalls/sys_enter")
int aead_closed_whole(struct perf_syscall *ctx)
{
	return on_close(user_regs(), ctx->nr);
}
