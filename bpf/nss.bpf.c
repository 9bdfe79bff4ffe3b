// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// NSS has no functions of its own to read and write: a program calls NSPR's PR_Read
// and PR_Write on a PRFileDesc whose layers do TLS, and on any file as well. NSS' layer
// is told by its methods, which SSL_ImportFD has just put there when it returns. So a
// process that was there before the tap is seen from its next new connection on.
#include "tls.h"

char __license[] SEC("license") = "Dual BSD/GPL";

// The start of a PRFileDesc (nspr/prio.h, part of its ABI).
struct pr_file_desc {
	__u64 methods;
	__u64 secret; // of NSS' layer: the session
	__u64 lower;
};

#define PR_MSG_PEEK 2

// Where the methods of NSS' layer are in a process.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32); // tgid
	__type(value, __u64);
} nss_methods SEC(".maps");

// Programs put layers of their own above NSS'.
#define MAX_LAYERS 4

// The TLS session of a PRFileDesc; 0 when it has none.
static __always_inline __u64 session_of(__u64 at)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	__u64 *methods = bpf_map_lookup_elem(&nss_methods, &tgid);
	struct pr_file_desc fd;

	if (!methods)
		return 0;
	for (int i = 0; i < MAX_LAYERS && at; i++) {
		if (bpf_probe_read_user(&fd, sizeof(fd), (void *)at))
			return 0;
		if (fd.methods == *methods)
			return fd.secret;
		at = fd.lower;
	}
	return 0;
}

static __always_inline int nss_enter(struct pt_regs *ctx, __u64 buf, __u8 dir)
{
	__u64 frame = FRAME(ctx), n = ARG3(ctx), session = session_of(ARG1(ctx));

	if (!session || !n)
		return 0;
	if (dir == DIR_READ)
		return read_enter(frame, session, buf, 0);
	return write_enter(frame, SOURCE_NSS, session, buf, (__s32)n, 0);
}

SEC("uprobe/PR_Read")
int nss_read(struct pt_regs *ctx)
{
	return nss_enter(ctx, ARG2(ctx), DIR_READ);
}

SEC("uprobe/PR_Recv")
int nss_recv(struct pt_regs *ctx)
{
	return ARG4(ctx) & PR_MSG_PEEK ? 0 : nss_enter(ctx, ARG2(ctx), DIR_READ);
}

// PR_Write, PR_Send.
SEC("uprobe/PR_Write")
int nss_write(struct pt_regs *ctx)
{
	return nss_enter(ctx, ARG2(ctx), DIR_WRITE);
}

// A PRIOVec is no struct iovec: the length has 32 bits. Nobody was seen to write so.
SEC("uprobe/PR_Writev")
int nss_writev(struct pt_regs *ctx)
{
	return nss_enter(ctx, 0, DIR_WRITE);
}

SEC("uretprobe/PR_Read")
int nss_return(struct pt_regs *ctx)
{
	__s32 n = RESULT(ctx);

	return call_return(ctx, SOURCE_NSS, n, !n);
}

SEC("uretprobe/SSL_ImportFD")
int nss_import(struct pt_regs *ctx)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct pr_file_desc fd = {};

	if (!RESULT(ctx) || bpf_probe_read_user(&fd, sizeof(fd), (void *)RESULT(ctx)))
		return 0;
	bpf_map_update_elem(&nss_methods, &tgid, &fd.methods, BPF_ANY);
	return session_birth(SOURCE_NSS, fd.secret);
}

SEC("uprobe/PR_Close")
int nss_close(struct pt_regs *ctx)
{
	__u64 session = session_of(ARG1(ctx));

	return session ? session_end(SOURCE_NSS, session) : 0;
}
