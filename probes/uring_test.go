package probes

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// As in linux/io_uring.h.
type (
	uringParams struct {
		sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
		_                                                                      [3]uint32
		sq                                                                     struct {
			head, tail, mask, entries, flags, dropped, array, _ uint32
			_                                                   uint64
		}
		cq struct {
			head, tail, mask, entries, overflow, cqes, flags, _ uint32
			_                                                   uint64
		}
	}
	uringSQE struct {
		opcode, flags uint8
		ioprio        uint16
		fd            int32
		off, addr     uint64
		len, opFlags  uint32
		userData      uint64
		_             [3]uint64
	}
	uringCQE struct {
		userData uint64
		res      int32
		flags    uint32
	}
)

const (
	uringSend = 26 // IORING_OP_SEND
	uringRecv = 27 // IORING_OP_RECV
)

// uring is a ring of one operation at a time.
type uring struct {
	fd           int
	params       uringParams
	sq, cq, sqes []byte
}

func newUring() (*uring, error) {
	u := new(uring)
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&u.params)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("set up io_uring: %w", errno)
	}
	u.fd = int(fd)
	var errs [3]error
	at := func(off int64, size uint32, err *error) (b []byte) {
		b, *err = unix.Mmap(u.fd, off, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
		return b
	}
	u.sq = at(0, u.params.sq.array+4*u.params.sqEntries, &errs[0])
	u.cq = at(0x8000000, u.params.cq.cqes+16*u.params.cqEntries, &errs[1])
	u.sqes = at(0x10000000, 64*u.params.sqEntries, &errs[2])
	return u, errors.Join(errs[:]...)
}

// do runs one operation and returns its result.
func (u *uring) do(opcode uint8, fd int, buf []byte) (int, error) {
	word := func(b []byte, off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&b[off])) }
	*(*uringSQE)(unsafe.Pointer(&u.sqes[0])) = uringSQE{opcode: opcode, fd: int32(fd), addr: uint64(uintptr(unsafe.Pointer(&buf[0]))), len: uint32(len(buf))}
	*word(u.sq, u.params.sq.array) = 0
	atomic.AddUint32(word(u.sq, u.params.sq.tail), 1)
	const getEvents = 1
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(u.fd), 1, 1, getEvents, 0, 0); errno != 0 {
		return 0, fmt.Errorf("enter io_uring: %w", errno)
	}
	head := word(u.cq, u.params.cq.head)
	done := (*uringCQE)(unsafe.Pointer(&u.cq[u.params.cq.cqes+16*(atomic.LoadUint32(head)&*word(u.cq, u.params.cq.mask))]))
	res := done.res
	atomic.AddUint32(head, 1)
	if res < 0 {
		return 0, unix.Errno(-res)
	}
	return int(res), nil
}

// requestByUring posts "hello" and reads the answer, all but connect by io_uring.
func requestByUring(to *url.URL) error {
	u, err := newUring()
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return fmt.Errorf("make socket: %w", err)
	}
	defer unix.Close(fd)
	port, err := strconv.Atoi(to.Port())
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if _, err := u.do(uringSend, fd, []byte(raw(to.Query().Get("id"), to.Host))); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	for buf := make([]byte, 4096); ; {
		n, err := u.do(uringRecv, fd, buf)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if n == 0 {
			return nil
		}
	}
}
