// Package simtap decodes what the simulator reads and writes, at its own end and
// after TLS, as the agent decodes what a tapped program does: for tests that hold the
// decoder to the simulator's ledger without a kernel between them.
package simtap

import (
	"net"
	"sync"
	"time"

	"github.com/tollwire/tollwire/cmd/llmsim/ledgercheck"
	"github.com/tollwire/tollwire/cmd/llmsim/sim"
	"github.com/tollwire/tollwire/decoder"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/vendors"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// Tap decodes the connections that go through Wrap. It is safe for concurrent use.
type Tap struct {
	mu    sync.Mutex
	d     *decoder.Decoder
	calls []*llm.Call
	wall  time.Time // at the clock's zero
}

// New returns a tap that decodes with all vendors.
func New() *Tap {
	t := &Tap{wall: time.Now().Add(-time.Duration(sim.Now()))}
	t.d = decoder.New(decoder.Config{
		Vendors:  vendors.All(content.Config{NoEstimate: true}),
		Deferred: decoder.NewDeferred(),
		Call:     func(c *llm.Call) { t.calls = append(t.calls, c) },
	})
	return t
}

// Wrap is a sim.Config's Tap.
func (t *Tap) Wrap(id uint64, c net.Conn) net.Conn { return &conn{Conn: c, tap: t, id: id} }

// Reset forgets the calls that have ended.
func (t *Tap) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls = nil
}

// Close ends all that is open and returns the calls in the order they ended, and how
// often something could not be decoded, by kind.
func (t *Tap) Close() (calls []*llm.Call, failures map[string]uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.d.Close()
	return t.calls, t.d.Stats().Failures
}

// Records are calls as ledgercheck reads them of the agent's.
func (t *Tap) Records(calls []*llm.Call) []*ledgercheck.Record {
	var out []*ledgercheck.Record
	for _, c := range calls {
		r := &ledgercheck.Record{
			Time: t.wall.Add(time.Duration(c.Times.Start)), Role: c.Role.String(),
			Provider: c.Provider, Operation: c.Operation, RequestModel: c.RequestModel, ResponseModel: c.ResponseModel,
			ResponseID: c.ResponseID, Finish: c.FinishReasons, Stream: c.Stream, Status: c.Status, Error: c.ErrorType,
			Usage: make(map[string]float64), Completeness: c.Completeness.String(), Disagreement: c.Disagreement,
			Chunks: c.Times.Chunks, Partial: string(c.Partial), LostBytes: int64(c.LostBytes),
		}
		for class := range llm.NumClasses {
			if c.Usage.Has(class) {
				r.Usage[class.String()] = c.Usage.Get(class)
			}
		}
		out = append(out, r)
	}
	return out
}

// conn hands on what is read and written.
type conn struct {
	net.Conn
	tap *Tap
	id  uint64
	pos [2]uint64
}

// Read implements net.Conn. What is read is pushed before the server sees it.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.push(flow.KindData, flow.Read, p[:n])
	}
	return n, err
}

// Write implements net.Conn. What is written is pushed before the client can answer.
func (c *conn) Write(p []byte) (int, error) {
	c.push(flow.KindData, flow.Write, p)
	return c.Conn.Write(p)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.push(flow.KindClose, flow.Write, nil)
	return c.Conn.Close()
}

func (c *conn) push(k flow.Kind, dir flow.Dir, p []byte) {
	t := c.tap
	t.mu.Lock()
	defer t.mu.Unlock()
	t.d.Push(&flow.Data{
		Kind: k, Conn: flow.Conn{Proc: flow.Proc{PID: 1, Start: 1}, Key: c.id, Gen: 1}, Dir: dir, Source: flow.SourceOpenSSL,
		Time: flow.Time(sim.Now()), Pos: c.pos[dir], Payload: p,
	})
	c.pos[dir] += uint64(len(p))
}
