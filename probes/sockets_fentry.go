package probes

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/tollwire/tollwire/flow"
)

// socketFentry sees the kernel's own functions by trampolines.
type socketFentry struct{}

func (socketFentry) source() flow.Source { return flow.SourceSocketFentry }

func (socketFentry) probe() error {
	prog, err := nothing(ebpf.Tracing, ebpf.AttachTraceFEntry, "tcp_sendmsg")
	if err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	defer prog.Close()
	l, err := link.AttachTracing(link.TracingOptions{Program: prog})
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return l.Close()
}

func (socketFentry) spec() (*ebpf.CollectionSpec, error) {
	spec, err := loadSocketFentry()
	if err != nil {
		return nil, err
	}
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's BTF: %w", err)
	}
	args, flags, err := recvmsgArgs(kernel)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(spec.Variables["recvmsg_args"].Set(args), spec.Variables["recvmsg_flags"].Set(flags)); err != nil {
		return nil, fmt.Errorf("set where tcp_recvmsg has its arguments: %w", err)
	}
	if !hasFunction(kernel, sendpage) {
		delete(spec.Programs, "fexit_sendpage")
	}
	return spec, nil
}

func (socketFentry) attach(programs map[string]*ebpf.Program) ([]link.Link, error) {
	var all []func() (link.Link, error)
	for _, name := range []string{
		"fentry_sendmsg", "fentry_recvmsg", "fentry_close",
		"fexit_sendmsg", "fexit_recvmsg", "fexit_sendpage", "fexit_splice_read",
	} {
		if programs[name] == nil {
			continue // this kernel has no such function
		}
		all = append(all, func() (link.Link, error) {
			l, err := link.AttachTracing(link.TracingOptions{Program: programs[name]})
			if err != nil {
				return nil, fmt.Errorf("attach %s: %w", name, err)
			}
			return l, nil
		})
	}
	return attachAll(all...)
}

// sendpage is how sendfile comes to a socket until Linux 6.5.
const sendpage = "tcp_sendpage"

func hasFunction(kernel *btf.Spec, name string) bool {
	var fn *btf.Func
	return kernel.TypeByName(name, &fn) == nil
}

// recvmsgArgs returns how many arguments tcp_recvmsg has in this kernel, and which
// of them, from 0, are the flags.
func recvmsgArgs(kernel *btf.Spec) (args, flags uint32, err error) {
	var fn *btf.Func
	if err := kernel.TypeByName("tcp_recvmsg", &fn); err != nil {
		return 0, 0, fmt.Errorf("look up tcp_recvmsg in the kernel's BTF: %w", err)
	}
	proto, ok := fn.Type.(*btf.FuncProto)
	if !ok {
		return 0, 0, fmt.Errorf("tcp_recvmsg is a %T in the kernel's BTF, want a function", fn.Type)
	}
	i := slices.IndexFunc(proto.Params, func(p btf.FuncParam) bool { return p.Name == "flags" })
	if i != 3 && i != 4 {
		return 0, 0, fmt.Errorf("tcp_recvmsg of this kernel has its flags at %d of %d arguments, want 3 or 4", i, len(proto.Params))
	}
	return uint32(len(proto.Params)), uint32(i), nil
}
