package sim

import (
	"bytes"
	"net"
	"sync"
	"sync/atomic"
)

// countedConn counts the application's bytes and keeps the moment the first byte
// of a request was read. It wraps a *tls.Conn or a plain one.
type countedConn struct {
	net.Conn
	id      uint64
	tls     string
	cipher  string
	read    atomic.Int64
	written atomic.Int64
	closed  atomic.Bool
	first   atomic.Int64 // when the first byte since the last request was read; 0 before it
	last    atomic.Int64 // when the last byte was read
	ahead   []byte       // read already, for startsWith
	gone    func()
}

func (c *countedConn) Read(p []byte) (int, error) {
	if len(c.ahead) > 0 {
		n := copy(p, c.ahead)
		c.ahead = c.ahead[n:]
		return n, nil
	}
	n, err := c.Conn.Read(p)
	if n > 0 {
		now := Now()
		c.read.Add(int64(n))
		c.first.CompareAndSwap(0, now)
		c.last.Store(now)
	}
	return n, err
}

// Write counts before it writes: who has read the last byte may ask for the count at once.
func (c *countedConn) Write(p []byte) (int, error) {
	c.written.Add(int64(len(p)))
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n - len(p)))
	return n, err
}

func (c *countedConn) Close() error {
	if !c.closed.Swap(true) && c.gone != nil {
		c.gone()
	}
	return c.Conn.Close()
}

// startsWith reports whether the connection's first bytes are prefix, reading no
// further than it must to tell.
func (c *countedConn) startsWith(prefix []byte) bool {
	var got []byte
	for len(got) < len(prefix) && bytes.HasPrefix(prefix, got) {
		p := make([]byte, len(prefix)-len(got))
		n, err := c.Read(p)
		got = append(got, p[:n]...)
		if err != nil {
			break
		}
	}
	c.ahead = got
	return bytes.Equal(got, prefix)
}

func (c *countedConn) state() Conn {
	return Conn{
		ID: c.id, Addr: c.RemoteAddr().String(), TLS: c.tls, Cipher: c.cipher,
		Read: c.read.Load(), Written: c.written.Load(), Closed: c.closed.Load(),
	}
}

// handed is a net.Listener over connections that were accepted elsewhere.
type handed struct {
	conns chan net.Conn
	done  chan struct{}
	addr  net.Addr
	once  sync.Once
}

func newHanded(addr net.Addr) *handed {
	return &handed{conns: make(chan net.Conn), done: make(chan struct{}), addr: addr}
}

func (h *handed) hand(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		c.Close()
	}
}

func (h *handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handed) Close() error { h.once.Do(func() { close(h.done) }); return nil }

func (h *handed) Addr() net.Addr { return h.addr }
