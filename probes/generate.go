package probes

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -type hdr -type verdict_key -type counters -type settings -type source -type kind -type dir -type gap_reason -type verdict -type hdr_flags core ../bpf/core.bpf.c -- -Wall -Werror
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 openssl ../bpf/openssl.bpf.c -- -Wall -Werror
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 nss ../bpf/nss.bpf.c -- -Wall -Werror
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 gnutls ../bpf/gnutls.bpf.c -- -Wall -Werror
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 gotls ../bpf/gotls.bpf.c -- -Wall -Werror
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 socketFentry ../bpf/socket_fentry.bpf.c -- -Wall -Werror
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 socketKprobe ../bpf/socket_kprobe.bpf.c -- -Wall -Werror
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 socketTracepoint ../bpf/socket_tracepoint.bpf.c -- -Wall -Werror
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -type wanted -type real_inode vma ../bpf/vma.bpf.c -- -Wall -Werror
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types aead ../bpf/aead.bpf.c -- -Wall -Werror
