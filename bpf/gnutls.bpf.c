// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// GnuTLS' gnutls_record_send, gnutls_record_recv and their twins, which call each
// other: of nested calls the outermost counts. A send that fails with GNUTLS_E_AGAIN
// has taken the data all the same, and says how much of it when it is called again.
#include "tls.h"

char __license[] SEC("license") = "Dual BSD/GPL";

// gnutls_record_send, _send2, _send_range. A send that goes on with NULL has no buffer
// that could be read.
SEC("uprobe/gnutls_send")
int gnutls_send(struct pt_regs *ctx)
{
	return write_enter(FRAME(ctx), SOURCE_GNUTLS, ARG1(ctx), ARG2(ctx), ARG3(ctx), 0);
}

// gnutls_record_uncork sends by gnutls_record_send what was handed over, and counted,
// while the session was corked.
SEC("uprobe/gnutls_uncork")
int gnutls_uncork(struct pt_regs *ctx)
{
	return write_enter(FRAME(ctx), SOURCE_GNUTLS, 0, 0, 0, 0);
}

// gnutls_record_recv, _recv_seq, _recv_early_data. Nothing is read where no room is given.
SEC("uprobe/gnutls_recv")
int gnutls_recv(struct pt_regs *ctx)
{
	return ARG3(ctx) ? read_enter(FRAME(ctx), ARG1(ctx), ARG2(ctx), 0) : 0;
}

// gnutls_record_recv_packet gives a packet of GnuTLS' own.
SEC("uprobe/gnutls_recv_packet")
int gnutls_recv_packet(struct pt_regs *ctx)
{
	return read_enter(FRAME(ctx), ARG1(ctx), 0, 0);
}

// The return of all of them. Zero is the peer's close_notify.
SEC("uretprobe/gnutls_return")
int gnutls_return(struct pt_regs *ctx)
{
	__s64 n = RESULT(ctx);

	return call_return(ctx, SOURCE_GNUTLS, n, !n);
}

// gnutls_init and gnutls_record_send_file may have calls of the others inside, so
// theirs are kept in places of their own.
enum place {
	PLACE_INIT,
	PLACE_FILE,
};

SEC("uprobe/gnutls_init")
int gnutls_init_enter(struct pt_regs *ctx)
{
	struct call_key key = {.task = bpf_get_current_pid_tgid(), .g = PLACE_INIT};
	struct call call = {.out = ARG1(ctx)};

	bpf_map_update_elem(&calls, &key, &call, BPF_ANY);
	return 0;
}

SEC("uretprobe/gnutls_init")
int gnutls_init_return(struct pt_regs *ctx)
{
	struct call_key key = {.task = bpf_get_current_pid_tgid(), .g = PLACE_INIT};
	struct call *call = bpf_map_lookup_elem(&calls, &key);
	__u64 session = 0;

	if (!call)
		return 0;
	if (!(__s32)RESULT(ctx))
		bpf_probe_read_user(&session, sizeof(session), (void *)call->out);
	bpf_map_delete_elem(&calls, &key);
	return session_birth(SOURCE_GNUTLS, session);
}

// gnutls_record_send_file reads the file and sends by gnutls_record_send, or has the
// kernel do both (kTLS): what the nested calls did not count, no probe can read.
SEC("uprobe/gnutls_send_file")
int gnutls_send_file(struct pt_regs *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct call_key key = {.task = id, .g = PLACE_FILE};
	struct call call = {.conn = ARG1(ctx), .dir = DIR_WRITE, .time = bpf_ktime_get_ns()};
	struct conn_key conn = {.key = call.conn, .tgid = id >> 32, .source = SOURCE_GNUTLS};
	struct conn *c = bpf_map_lookup_elem(&conns, &conn);

	call.out = c ? c->pos[DIR_WRITE] : 0;
	bpf_map_update_elem(&calls, &key, &call, BPF_ANY);
	return 0;
}

SEC("uretprobe/gnutls_send_file")
int gnutls_send_file_return(struct pt_regs *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct call_key key = {.task = id, .g = PLACE_FILE};
	struct call *call = bpf_map_lookup_elem(&calls, &key);
	__s64 n = RESULT(ctx);

	if (!call)
		return 0;
	struct call done = *call;
	struct conn_key conn = {.key = done.conn, .tgid = id >> 32, .source = SOURCE_GNUTLS};
	struct conn *c = bpf_map_lookup_elem(&conns, &conn);

	bpf_map_delete_elem(&calls, &key);
	if (c)
		n -= c->pos[DIR_WRITE] - done.out;
	return n > 0 ? call_unreadable(id, &done, SOURCE_GNUTLS, n) : 0;
}

SEC("uprobe/gnutls_deinit")
int gnutls_deinit(struct pt_regs *ctx)
{
	return session_end(SOURCE_GNUTLS, ARG1(ctx));
}
