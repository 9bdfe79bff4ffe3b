// Package otlp sends spans and metrics to an OpenTelemetry collector, or to anything
// that speaks OTLP, over gRPC or HTTP. What cannot be sent waits in a bounded queue on
// disk; a span is the same when it is sent again.
package otlp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/export/metric"
)

const (
	scopeName = "github.com/tollwire/tollwire"
	schemaURL = "https://opentelemetry.io/schemas/1.41.0"
)

// maxRequest bounds one request in encoded bytes, so that with its frames it stays under
// the 4 MiB that gRPC servers take. What is larger by itself goes alone, for the
// receiver to refuse.
const maxRequest = 3 << 20

// framing is more than the tag and the length of a message inside another.
const framing = 16

// Config describes the receiver and what it gets.
type Config struct {
	Endpoint    string // grpc://HOST:4317, grpcs://…, http://HOST:4318, https://…; a path under HTTP goes before /v1/traces
	TLS         TLS
	Headers     map[string]string
	Compression string        // "gzip" or "none"; "" is gzip
	Timeout     time.Duration // of one request; 0 is 10 s

	// Dir is where the queue lives, a folder for each signal; it must be this
	// exporter's own.
	Dir        string
	QueueBytes int64 // for each signal; 0 is 256 MiB
	MaxBackoff time.Duration

	Traces    bool
	Sampling  Sampling
	BatchSize int           // spans a request; 0 is 512
	BatchWait time.Duration // the longest a span waits for others; 0 is a second

	Metrics  *metric.Set   // nil: none
	Interval time.Duration // between snapshots; 0 is 15 s

	// Langfuse adds the attributes that Langfuse's OTLP endpoint reads.
	Langfuse bool
	// Resource are attributes of this node and agent: host.name, k8s.cluster.name …
	Resource map[string]string
	Version  string // the agent's
	Logger   *slog.Logger
}

// TLS names files in PEM. All are optional: the system's roots, no client certificate.
type TLS struct{ CA, Cert, Key, ServerName string }

func (c *Config) agent() string { return "tollwire/" + cmp.Or(c.Version, "dev") }

// Stats counts what became of one signal's items: spans or metric requests.
type Stats struct {
	Queued   int    // waiting on disk
	Bytes    int64  // …as bytes
	Sent     uint64 // taken by the receiver
	Dropped  uint64 // the oldest, when the queue was full
	Rejected uint64 // refused by the receiver for good
	Failures uint64 // requests that failed and were or will be tried again
	Sampled  uint64 // spans that sampling left out
	Lost     uint64 // could not be queued
}

// Exporter sends to one receiver.
type Exporter struct {
	cfg    Config
	sender sender
	scope  *commonpb.InstrumentationScope
	began  time.Time

	mu     sync.Mutex
	batch  []spanOf
	closed bool
	full   chan struct{}

	lanes                    []*lane
	spans                    *lane // nil: none
	metrics                  *lane // nil: none
	stopFeeding, stopSending context.CancelFunc
	feeding, sending         sync.WaitGroup
	sampled                  atomic.Uint64
}

type spanOf struct {
	resource attributes
	key      string
	span     *tracepb.Span
}

// lane is one signal's queue and what became of it.
type lane struct {
	signal
	queue                          *queue
	sent, rejected, failures, lost atomic.Uint64
	warned                         time.Time
}

// New opens the queue and begins to send what it holds.
func New(cfg Config) (*Exporter, error) {
	cfg.Compression = cmp.Or(cfg.Compression, "gzip")
	cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Second)
	cfg.QueueBytes = cmp.Or(cfg.QueueBytes, 256<<20)
	cfg.MaxBackoff = cmp.Or(cfg.MaxBackoff, 30*time.Second)
	cfg.BatchSize = cmp.Or(cfg.BatchSize, 512)
	cfg.BatchWait = cmp.Or(cfg.BatchWait, time.Second)
	cfg.Interval = cmp.Or(cfg.Interval, 15*time.Second)
	if cfg.Compression != "gzip" && cfg.Compression != "none" {
		return nil, fmt.Errorf("compression %q: want gzip or none", cfg.Compression)
	}
	if cfg.Dir == "" {
		return nil, errors.New("no folder for the queue")
	}
	if cfg.Langfuse { // asks for spans to be shown at once
		headers := map[string]string{"x-langfuse-ingestion-version": "4"}
		maps.Copy(headers, cfg.Headers)
		cfg.Headers = headers
	}
	e := &Exporter{cfg: cfg, began: time.Now(), full: make(chan struct{}, 1),
		scope: &commonpb.InstrumentationScope{Name: scopeName, Version: cfg.Version}}
	var err error
	if e.sender, err = newSender(&e.cfg); err != nil {
		return nil, err
	}
	for _, s := range []struct {
		on   bool
		lane **lane
		signal
	}{{cfg.Traces, &e.spans, traces}, {cfg.Metrics != nil, &e.metrics, metrics}} {
		if !s.on {
			continue
		}
		q, err := openQueue(filepath.Join(cfg.Dir, s.name), cfg.QueueBytes)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("queue of %s: %w", s.name, err), e.closeQueues(), e.sender.close())
		}
		*s.lane = &lane{signal: s.signal, queue: q}
		e.lanes = append(e.lanes, *s.lane)
	}
	feeding, stop := context.WithCancel(context.Background())
	e.stopFeeding = stop
	e.feeding.Go(func() { e.feed(feeding) })
	sending, stop := context.WithCancel(context.Background())
	e.stopSending = stop
	for _, l := range e.lanes {
		e.sending.Go(func() { e.drain(sending, l) })
	}
	return e, nil
}

// Export queues r's span, unless sampling leaves it out. It does not wait for the disk.
func (e *Exporter) Export(r *account.Record) {
	if e.spans == nil {
		return
	}
	if r.Time.IsZero() {
		e.spans.lost.Add(1) // a span has a time, or it is none
		return
	}
	a := describe(r)
	if !e.cfg.Sampling.kept(r, a) {
		e.sampled.Add(1)
		return
	}
	if e.cfg.Langfuse {
		a = langfuse(a, r)
	}
	s := spanOf{resource: resource(&r.Owner, e.cfg.Resource), span: span(r, a)}
	s.key = fmt.Sprint(s.resource)

	e.mu.Lock()
	if e.closed || len(e.batch) >= 64*e.cfg.BatchSize { // the disk is stuck
		e.mu.Unlock()
		e.spans.lost.Add(1)
		return
	}
	e.batch = append(e.batch, s)
	n := len(e.batch)
	e.mu.Unlock()
	if n >= e.cfg.BatchSize {
		select {
		case e.full <- struct{}{}:
		default:
		}
	}
}

// feed moves batches and snapshots to the queue.
func (e *Exporter) feed(ctx context.Context) {
	batch := time.NewTicker(e.cfg.BatchWait)
	defer batch.Stop()
	interval := time.NewTicker(e.cfg.Interval)
	defer interval.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.full:
			e.flush()
		case <-batch.C:
			e.flush()
		case <-interval.C:
			e.measure()
		}
	}
}

// flush queues the spans gathered so far.
func (e *Exporter) flush() {
	e.mu.Lock()
	batch := e.batch
	e.batch = nil
	e.mu.Unlock()
	for len(batch) > 0 {
		n, size := 0, 0
		for n < min(len(batch), e.cfg.BatchSize) {
			size += batch[n].size()
			if n > 0 && size > maxRequest {
				break
			}
			n++
		}
		e.push(e.spans, e.request(batch[:n]), n)
		batch = batch[n:]
	}
}

// size is what s adds to a request at most, encoded.
func (s *spanOf) size() int {
	return proto.Size(s.span) + framing + proto.Size(&resourcepb.Resource{Attributes: keyValues(s.resource)}) + framing
}

func (e *Exporter) request(batch []spanOf) *coltrace.ExportTraceServiceRequest {
	req := &coltrace.ExportTraceServiceRequest{}
	of := map[string]*tracepb.ScopeSpans{}
	for _, s := range batch {
		ss := of[s.key]
		if ss == nil {
			ss = &tracepb.ScopeSpans{Scope: e.scope, SchemaUrl: schemaURL}
			of[s.key] = ss
			req.ResourceSpans = append(req.ResourceSpans, &tracepb.ResourceSpans{
				Resource: &resourcepb.Resource{Attributes: keyValues(s.resource)}, SchemaUrl: schemaURL, ScopeSpans: []*tracepb.ScopeSpans{ss},
			})
		}
		ss.Spans = append(ss.Spans, s.span)
	}
	return req
}

// measure queues the state of every measure.
func (e *Exporter) measure() {
	if e.metrics == nil {
		return
	}
	// The instance keeps the agents of a fleet apart behind one collector: Prometheus has
	// nothing else of a resource on its series.
	all := map[string]string{"service.instance.id": e.cfg.Resource["host.name"]}
	maps.Copy(all, e.cfg.Resource)
	all["service.name"], all["service.version"] = "tollwire", e.cfg.Version
	var res attributes
	for _, k := range slices.Sorted(maps.Keys(all)) {
		res.string(k, all[k])
	}
	for _, r := range snapshot(e.cfg.Metrics, &resourcepb.Resource{Attributes: keyValues(res)}, e.scope, e.began, time.Now()) {
		e.push(e.metrics, r, 1)
	}
}

func (e *Exporter) push(l *lane, m proto.Message, items int) {
	b, err := proto.Marshal(m)
	if err == nil {
		err = l.queue.push(b, items)
	}
	if err != nil {
		l.lost.Add(uint64(items))
		e.warn(l, "queue "+l.name, err)
	}
}

// drain sends one lane's messages in order, each until it was taken or refused for good,
// or has lost its room in the queue.
func (e *Exporter) drain(ctx context.Context, l *lane) {
	for {
		b, items, ok := l.queue.peek()
		if !ok {
			return
		}
		for try := 0; ; try++ {
			refused, err := e.sendOne(ctx, l, b)
			if err == nil {
				refused = min(refused, items)
				l.rejected.Add(uint64(refused))
				l.sent.Add(uint64(items - refused))
				break
			}
			if ctx.Err() != nil {
				return
			}
			var se *sendError
			if !errors.As(err, &se) || !se.retry {
				l.rejected.Add(uint64(items))
				e.warn(l, "send "+l.name, err)
				break
			}
			l.failures.Add(1)
			e.warn(l, "send "+l.name, err)
			if l.queue.displaced(items) {
				break
			}
			if !sleep(ctx, max(se.after, e.backoff(try))) {
				return
			}
		}
		l.queue.ack()
	}
}

// sendOne returns how many items the receiver refused of a message that it took.
func (e *Exporter) sendOne(ctx context.Context, l *lane, b []byte) (refused int, err error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Timeout)
	defer cancel()
	reply, err := e.sender.send(ctx, &l.signal, b)
	if err != nil {
		return 0, err
	}
	n, why := l.signal.rejected(reply)
	if n > 0 {
		e.warn(l, "send "+l.name, fmt.Errorf("the receiver refused %d: %s", n, why))
	}
	return int(max(n, 0)), nil
}

// backoff doubles from a quarter of a second, with jitter, so that a fleet does not
// come back at once.
func (e *Exporter) backoff(try int) time.Duration {
	d := min(250*time.Millisecond<<min(try, 20), e.cfg.MaxBackoff)
	return d/2 + rand.N(d/2+1)
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// warn says that something failed, at most once a minute a lane.
func (e *Exporter) warn(l *lane, what string, err error) {
	e.mu.Lock()
	now := time.Now()
	quiet := now.Sub(l.warned) < time.Minute
	if !quiet {
		l.warned = now
	}
	e.mu.Unlock()
	if !quiet {
		items, bytes, dropped := l.queue.depth()
		e.cfg.Logger.Warn(what, "endpoint", e.cfg.Endpoint, "err", err, "queued", items, "bytes", bytes, "dropped", dropped)
	}
}

// Close queues what is left and sends until the queue is empty or ctx ends; what
// is left then is sent after the next start.
func (e *Exporter) Close(ctx context.Context) error {
	e.mu.Lock()
	closed := e.closed
	e.closed = true
	e.mu.Unlock()
	if closed {
		return nil
	}
	e.stopFeeding()
	e.feeding.Wait()
	e.flush()
	e.measure()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for left := true; left && ctx.Err() == nil; {
		left = false
		for _, l := range e.lanes {
			left = left || !l.queue.empty()
		}
		if left {
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	}
	e.stopSending()
	err := e.closeQueues()
	e.sending.Wait()
	return errors.Join(err, e.sender.close())
}

func (e *Exporter) closeQueues() error {
	var err error
	for _, l := range e.lanes {
		err = errors.Join(err, l.queue.close())
	}
	return err
}

// Stats returns the counters of each signal: "traces", "metrics".
func (e *Exporter) Stats() map[string]Stats {
	all := make(map[string]Stats)
	for _, l := range e.lanes {
		items, bytes, dropped := l.queue.depth()
		s := Stats{Queued: items, Bytes: bytes, Sent: l.sent.Load(), Dropped: dropped,
			Rejected: l.rejected.Load(), Failures: l.failures.Load(), Lost: l.lost.Load()}
		if l == e.spans {
			s.Sampled = e.sampled.Load()
		}
		all[l.name] = s
	}
	return all
}

// Samples emits the counters as measures; name is the exporter's own.
func (e *Exporter) Samples(name string, emit func(metric.Sample)) {
	for signal, s := range e.Stats() {
		exporter := []metric.Attr{{Key: "exporter", Value: name + "." + signal}}
		queue := []metric.Attr{{Key: "queue", Value: name + "." + signal}}
		for _, x := range []metric.Sample{
			{Name: "tollwire.export.failures", Kind: metric.Counter, Help: "Writes that failed, by exporter.", Attrs: exporter, Value: float64(s.Failures + s.Rejected)},
			{Name: "tollwire.export.dropped", Kind: metric.Counter, Help: "Records that an exporter could not take.", Attrs: exporter, Value: float64(s.Dropped + s.Rejected + s.Lost)},
			{Name: "tollwire.export.sent", Kind: metric.Counter, Help: "Items that a receiver took: spans, or requests with metrics.", Attrs: exporter, Value: float64(s.Sent)},
			{Name: "tollwire.export.sampled", Kind: metric.Counter, Help: "Spans that sampling left out.", Attrs: exporter, Value: float64(s.Sampled)},
			{Name: "tollwire.queue.depth", Kind: metric.Gauge, Help: "What waits in a queue.", Attrs: queue, Value: float64(s.Queued)},
			{Name: "tollwire.queue.size", Unit: "By", Kind: metric.Gauge, Help: "What waits in a queue on disk, in bytes.", Attrs: queue, Value: float64(s.Bytes)},
		} {
			emit(x)
		}
	}
}
