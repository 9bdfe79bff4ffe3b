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
#include "aead_record.h"
#include "aead_stream.h"
#include "registers.h"

char __license[] SEC("license") = "Dual BSD/GPL";

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
	catch_up(w, &key, dir, n);
	return dir == DIR_READ ? cursor_of(regs, nr, &key, dir, n) : NULL;
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
