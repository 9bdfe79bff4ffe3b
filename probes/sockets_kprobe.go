package probes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/tollwire/tollwire/flow"
)

// socketKprobe sees the kernel's own functions by traps.
type socketKprobe struct{}

func (socketKprobe) source() flow.Source { return flow.SourceSocketKprobe }

func (socketKprobe) probe() error {
	if _, err := os.Stat("/sys/bus/event_source/devices/kprobe"); errors.Is(err, fs.ErrNotExist) {
		return errors.New("the kernel is built without CONFIG_KPROBE_EVENTS")
	}
	prog, err := nothing(ebpf.Kprobe, ebpf.AttachNone, "")
	if err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	defer prog.Close()
	l, err := link.Kprobe("tcp_sendmsg", prog, nil)
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return l.Close()
}

func (socketKprobe) spec() (*ebpf.CollectionSpec, error) {
	spec, err := loadSocketKprobe()
	if err != nil {
		return nil, err
	}
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's BTF: %w", err)
	}
	_, flags, err := recvmsgArgs(kernel)
	if err != nil {
		return nil, err
	}
	if err := spec.Variables["recvmsg_flags"].Set(flags); err != nil {
		return nil, fmt.Errorf("set where tcp_recvmsg has its flags: %w", err)
	}
	if !hasFunction(kernel, sendpage) {
		delete(spec.Programs, "kprobe_sendpage")
	}
	return spec, nil
}

// maxSleeping is how many threads may be inside one function at once, most of them
// asleep in a read; the return of one more is missed. The kernel's own default is
// ten or twice the CPUs.
const maxSleeping = 4096

func (socketKprobe) attach(programs map[string]*ebpf.Program) ([]link.Link, error) {
	var all []func() (link.Link, error)
	entry := func(function, program string) {
		all = append(all, func() (link.Link, error) {
			l, err := link.Kprobe(function, programs[program], nil)
			if err != nil {
				return nil, fmt.Errorf("attach to %s: %w", function, err)
			}
			return l, nil
		})
	}
	call := func(function, program string) {
		all = append(all, func() (link.Link, error) {
			l, err := link.Kretprobe(function, programs["kprobe_return"], &link.KprobeOptions{RetprobeMaxActive: maxSleeping})
			if err != nil { // without tracefs there is no asking for more than the default
				l, err = link.Kretprobe(function, programs["kprobe_return"], nil)
			}
			if err != nil {
				return nil, fmt.Errorf("attach to the return of %s: %w", function, err)
			}
			return l, nil
		})
		entry(function, program)
	}
	call("tcp_sendmsg", "kprobe_sendmsg")
	call("tcp_recvmsg", "kprobe_recvmsg")
	call("tcp_splice_read", "kprobe_splice_read")
	if programs["kprobe_sendpage"] != nil {
		call(sendpage, "kprobe_sendpage")
	}
	entry("tcp_close", "kprobe_close")
	return attachAll(all...)
}
