package probes

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// primer has files tapped sooner. The first uprobe after a pause waits some milliseconds,
// an RCU grace period, until forks know that they have to wait for those who change
// mappings (the kernel's dup_mmap_sem); the next ones do not. So while a file is still
// being looked into, a probe is put where nobody ever runs.
type primer struct {
	nothing *ebpf.Program
	nowhere *os.File
	asks    chan struct{}
}

// newPrimer needs uprobe_multi.
func newPrimer() (*primer, error) {
	fd, err := unix.MemfdCreate("tollwire-nowhere", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file in memory: %w", err)
	}
	file := os.NewFile(uintptr(fd), "tollwire-nowhere")
	page := make([]byte, os.Getpagesize())
	header := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT)}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	_, err = binary.Encode(page, binary.LittleEndian, &header)
	if err == nil {
		_, err = file.Write(page)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write an executable: %w", err), file.Close())
	}
	prog, err := nothing(ebpf.Kprobe, ebpf.AttachTraceUprobeMulti, "")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("load program: %w", err), file.Close())
	}
	return &primer{prog, file, make(chan struct{})}, nil
}

// primePause is the least time between two, as forks wait meanwhile, if not for long.
const primePause = 50 * time.Millisecond

// prime does it, unless it was done just now, and does not wait.
func (p *primer) prime() {
	select {
	case p.asks <- struct{}{}:
	default:
	}
}

// run does what prime asks for until ctx is done, and then frees everything.
func (p *primer) run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, p.nothing.Close(), p.nowhere.Close()) }()
	ex, err := link.OpenExecutable(fmt.Sprintf("/proc/self/fd/%d", p.nowhere.Fd()))
	if err != nil {
		return fmt.Errorf("open %s: %w", p.nowhere.Name(), err)
	}
	at := &link.UprobeMultiOptions{Addresses: []uint64{uint64(os.Getpagesize()) / 2}}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.asks:
		}
		l, err := ex.UprobeMulti(nil, p.nothing, at)
		if err != nil {
			return fmt.Errorf("attach to %s: %w", p.nowhere.Name(), err)
		}
		if err := l.Close(); err != nil {
			return fmt.Errorf("detach from %s: %w", p.nowhere.Name(), err)
		}
		time.Sleep(primePause)
	}
}
