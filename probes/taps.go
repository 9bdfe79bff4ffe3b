package probes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/probes/signature"
)

// Config says how to capture. The zero value captures everything with defaults.
type Config struct {
	Logger    *slog.Logger // nil: slog.Default()
	Proc      string       // where procfs is mounted; default /proc
	Rings     int          // rings, and so shards; default the number of CPUs, at most 4
	RingBytes int          // bytes of each ring, rounded up to a power of two; default 8 MiB
	BodyLimit int64        // bytes captured of one message without a verdict to capture it; default 4 MiB and 64 KiB for its head; -1: no limit
	Sockets   string       // way to the sockets: auto (default, the best there is), fentry, kprobe, tracepoint, off
}

// HeadRoom is what the default BodyLimit allows for a message's head, in bytes.
const HeadRoom = 64 << 10

func (c *Config) setDefaults() error {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Proc == "" {
		c.Proc = "/proc"
	}
	if c.Rings == 0 {
		c.Rings = min(4, runtime.NumCPU())
	}
	if c.Rings < 1 || c.Rings > maxShards {
		return fmt.Errorf("rings: want 1 to %d, found %d", maxShards, c.Rings)
	}
	if c.RingBytes == 0 {
		c.RingBytes = 8 << 20
	}
	if c.RingBytes < 0 || c.RingBytes > 1<<30 {
		return fmt.Errorf("ring bytes: want up to 1 GiB, found %d", c.RingBytes)
	}
	page := os.Getpagesize()
	c.RingBytes = 1 << bits.Len(uint(max(c.RingBytes, page)-1))
	switch {
	case c.BodyLimit == 0:
		c.BodyLimit = 4<<20 + HeadRoom
	case c.BodyLimit < 0:
		c.BodyLimit = 0
	}
	switch c.Sockets {
	case "":
		c.Sockets = "auto"
	case "auto", "fentry", "kprobe", "tracepoint", "off":
	default:
		return fmt.Errorf("sockets: want auto, fentry, kprobe, tracepoint or off, found %q", c.Sockets)
	}
	return nil
}

const maxShards = 64 // MAX_SHARDS of bpf/maps.h

// Taps is the running kernel side. Its methods may be called by several
// goroutines, Read by one for each shard.
type Taps struct {
	cfg  Config
	log  *slog.Logger
	core coreObjects

	settings settings

	rings   []*ebpf.Map
	readers []*reader
	types   *btf.Cache // of the kernel, until what Start loads is loaded
	// programs of the taps that the kernel accepted, by name
	programs    map[string]*ebpf.Program
	refused     map[flow.Source]error // taps that it did not accept
	loaded      []loaded
	links       []link.Link
	socketLinks []link.Link
	multi       bool                    // uprobe_multi links
	cookies     bool                    // what a probe tells its program, since Linux 5.15
	sockets     flow.Source             // SourceNone: not seen
	missed      [flow.NumSources]uint64 // what socketLinks had missed that are closed
	finder      *finder

	signatures signature.Set
	following  sync.Mutex
	followed   bool
	joins      []link.Link // what follows ciphertext to its socket

	closing chan struct{}
	once    sync.Once
	err     error

	freeing sync.RWMutex // held while maps are used, so that none is freed meanwhile
	final   *Stats       // once they are freed
}

// Start loads the taps, attaches them to every program that runs, and goes on to
// attach them to those that start, until Close is called or ctx is done. What this
// kernel or these privileges refuse is logged, and named by Check; only when
// nothing at all can be captured does Start fail.
func Start(ctx context.Context, cfg Config) (*Taps, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		cfg.Logger.Warn("cannot lift RLIMIT_MEMLOCK, which kernels before 5.11 count BPF maps against", "err", err)
	}
	t := newTaps(cfg)
	if err := t.load(); err != nil {
		return nil, errors.Join(err, t.free())
	}
	if err := t.attachKernel(); err != nil {
		return nil, errors.Join(err, t.free())
	}
	t.types = nil
	t.finder = newFinder(t)
	if err := t.finder.start(ctx); err != nil {
		return nil, errors.Join(err, t.free())
	}
	context.AfterFunc(ctx, func() { t.Close() })
	return t, nil
}

// loaded are the programs of one tap.
type loaded struct {
	source flow.Source
	*ebpf.Collection
}

func newTaps(cfg Config) *Taps {
	return &Taps{
		cfg:      cfg,
		log:      cfg.Logger,
		types:    btf.NewCache(),
		programs: make(map[string]*ebpf.Program),
		refused:  make(map[flow.Source]error),
		multi:    features.HaveBPFLinkUprobeMulti() == nil,
		cookies:  features.HaveProgramHelper(ebpf.Kprobe, asm.FnGetAttachCookie) == nil,
		closing:  make(chan struct{}),
	}
}

func (t *Taps) load() error {
	var err error
	if t.signatures, err = signature.Published(); err != nil {
		return err
	}
	spec, err := loadCore()
	if err != nil {
		return fmt.Errorf("read the core object: %w", err)
	}
	ring := &ebpf.MapSpec{Name: "ring", Type: ebpf.RingBuf, MaxEntries: uint32(t.cfg.RingBytes)}
	outer := spec.Maps[coreMapRings]
	outer.MaxEntries = uint32(t.cfg.Rings)
	outer.InnerMap = ring
	for i := range t.cfg.Rings {
		m, err := ebpf.NewMap(ring)
		if err != nil {
			return fmt.Errorf("make ring of %d bytes: %w", t.cfg.RingBytes, err)
		}
		t.rings = append(t.rings, m)
		outer.Contents = append(outer.Contents, ebpf.MapKV{Key: uint32(i), Value: m})
	}
	if err := spec.LoadAndAssign(&t.core, &ebpf.CollectionOptions{Cache: t.types}); err != nil {
		return fmt.Errorf("load the core object: %w", err)
	}
	if err := t.settings.share(t.core.Config); err != nil {
		return err
	}
	t.settings.Shards = uint32(t.cfg.Rings)
	t.settings.Self = uint32(os.Getpid())
	t.settings.BodyLimit = uint64(t.cfg.BodyLimit)
	for i, m := range t.rings {
		r, err := newReader(m, func(on bool) { t.wake(i, on) })
		if err != nil {
			return err
		}
		t.readers = append(t.readers, r)
	}
	for _, tap := range tlsTaps {
		t.loadTap(tap.source, tap.load)
	}
	return nil
}

// wake tells the programs whether to wake a shard's reader; after Close there are none.
func (t *Taps) wake(shard int, on bool) {
	t.freeing.RLock()
	defer t.freeing.RUnlock()
	if t.final == nil {
		t.settings.wake(shard, on)
	}
}

// loadTap loads one tap's programs, and notes why where the kernel refuses.
func (t *Taps) loadTap(source flow.Source, read func() (*ebpf.CollectionSpec, error)) {
	err := t.loadPrograms(source, read)
	switch {
	case errors.Is(err, errTooOld):
		t.refused[source] = err
		t.log.Warn("a tap is left out", "tap", source, "err", err)
	case err != nil:
		t.refused[source] = err
		t.log.Error("the kernel refuses a tap", "tap", source, "err", err)
	}
}

// loadPrograms loads programs on the maps of the core object, but for those that the tap
// has to itself.
func (t *Taps) loadPrograms(source flow.Source, read func() (*ebpf.CollectionSpec, error), own ...string) error {
	spec, err := read()
	if err != nil {
		return err
	}
	shared := map[string]*ebpf.Map{
		coreMapCalls: t.core.Calls, coreMapConfig: t.core.Config, coreMapConns: t.core.Conns,
		coreMapOwners: t.core.Owners, coreMapPlaces: t.core.Places, coreMapProcs: t.core.Procs,
		coreMapRings: t.core.Rings, coreMapSockCalls: t.core.SockCalls, coreMapStats: t.core.Stats,
		coreMapThreads: t.core.Threads, coreMapVerdicts: t.core.Verdicts,
	}
	for name := range shared {
		if spec.Maps[name] == nil || slices.Contains(own, name) {
			delete(shared, name)
			continue
		}
		if name == coreMapRings {
			spec.Maps[name].MaxEntries = t.core.Rings.MaxEntries()
			spec.Maps[name].InnerMap = &ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: uint32(t.cfg.RingBytes)}
		}
	}
	if !hasLoop() {
		withoutCallbacks(spec)
	}
	if hasPrivateStacks() {
		withOwnStacks(spec)
	}
	if t.multi {
		for _, p := range spec.Programs {
			if isUprobe(p) {
				p.AttachType = ebpf.AttachTraceUprobeMulti
			}
		}
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared, Cache: t.types})
	if err != nil {
		return err
	}
	t.loaded = append(t.loaded, loaded{source, c})
	for name, p := range c.Programs {
		t.programs[name] = p
	}
	return nil
}

func hasLoop() bool { return features.HaveProgramHelper(ebpf.Kprobe, asm.FnLoop) == nil }

// withoutCallbacks takes out the addresses of functions, which are there for
// bpf_loop (Linux 5.17): older kernels never come to that branch, but refuse the
// instruction wherever it stands.
func withoutCallbacks(spec *ebpf.CollectionSpec) {
	for _, p := range spec.Programs {
		for i, ins := range p.Instructions {
			if ins.IsLoadOfFunctionPointer() {
				p.Instructions[i] = asm.LoadImm(ins.Dst, 0, asm.DWord).WithSymbol(ins.Symbol())
			}
		}
	}
}

// attachKernel attaches what belongs to no file: the end of processes, sockets.
func (t *Taps) attachKernel() error {
	l, err := attachTracepoint("sched", "sched_process_exit", t.core.ProcessExit, t.core.ProcessExitWhole)
	if err != nil {
		t.log.Error("cannot see processes end", "err", err)
	} else {
		t.links = append(t.links, l)
	}
	if err := t.readSockets(); err != nil {
		return err
	}
	if len(t.programs) == 0 {
		return errors.New("load taps: the kernel accepts none")
	}
	return nil
}

// readSockets attaches the way to the sockets that the configuration asks for.
func (t *Taps) readSockets() error {
	tap, links, err := t.attachSockets()
	t.socketLinks = links
	switch {
	case tap != nil:
		t.sockets = tap.source()
	case err != nil && t.cfg.Sockets != "auto":
		return err
	case err != nil:
		t.log.Error("plaintext sockets are not seen", "err", err)
	}
	return nil
}

// leaveSockets detaches from the sockets. What was missed there stays counted.
func (t *Taps) leaveSockets() error {
	t.following.Lock()
	defer t.following.Unlock()
	links := t.socketLinks
	t.socketLinks = nil
	t.missed[t.sockets] += missedBy(links)
	return closeAll(links)
}

// Shards returns how many independent streams of records there are; all records
// of one connection come from one shard, the end of a process from every shard.
func (t *Taps) Shards() int { return len(t.readers) }

// Read fills d with the next record of a shard and waits for one when there is
// none. d.Payload is valid until the next Read of this shard. After Close it
// returns what is left and then os.ErrClosed.
func (t *Taps) Read(shard int, d *flow.Data) error { return t.readers[shard].read(d) }

// SetVerdict tells the kernel what user space thinks of an exchange (its number on
// HTTP/1, its stream on HTTP/2, 0 for the connection); it holds from the
// connection's next call on. A verdict on an exchange that is over is no error;
// after Close it is os.ErrClosed.
func (t *Taps) SetVerdict(c flow.Conn, exchange uint32, v flow.Verdict) error {
	t.freeing.RLock()
	defer t.freeing.RUnlock()
	if t.final != nil {
		return os.ErrClosed
	}
	key := coreVerdictKey{Key: c.Key, Gen: c.Gen, Exchange: exchange}
	if err := t.core.Verdicts.Put(&key, uint32(v)); err != nil {
		return fmt.Errorf("set verdict on %v: %w", c, err)
	}
	t.settings.verdictSet()
	return nil
}

// CrossEveryHead lets the heads of requests cross that cannot be calls to a model by
// their method and path, and what follows them until the verdict; or holds them back,
// which is how it begins. After Close it is os.ErrClosed.
func (t *Taps) CrossEveryHead(on bool) error {
	t.freeing.RLock()
	defer t.freeing.RUnlock()
	if t.final != nil {
		return os.ErrClosed
	}
	t.settings.crossEveryHead(on)
	return nil
}

// Close detaches everything, lets the readers empty their shards for up to a
// second, and frees the kernel's memory. Later calls return the same.
func (t *Taps) Close() error {
	t.once.Do(func() {
		close(t.closing)
		if t.finder != nil {
			t.err = t.finder.stop()
		}
		t.err = errors.Join(t.err, t.leaveSockets())
		t.following.Lock()
		for _, l := range slices.Concat(t.links, t.joins) {
			t.err = errors.Join(t.err, l.Close())
		}
		t.links, t.joins, t.followed = nil, nil, true
		t.following.Unlock()
		deadline := time.Now().Add(time.Second)
		for _, r := range t.readers {
			t.err = errors.Join(t.err, r.drain(time.Until(deadline)))
		}
		t.freeing.Lock()
		defer t.freeing.Unlock()
		final := t.readStats()
		t.final = &final
		t.err = errors.Join(t.err, t.free())
	})
	return t.err
}

func (t *Taps) free() error {
	var errs []error
	for _, l := range slices.Concat(t.links, t.socketLinks) {
		errs = append(errs, l.Close())
	}
	for _, r := range t.readers {
		errs = append(errs, r.close())
	}
	for _, c := range t.loaded {
		c.Close()
	}
	errs = append(errs, t.settings.free())
	if t.core.ProcessExit != nil {
		errs = append(errs, t.core.Close())
	}
	for _, m := range t.rings {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// newReader wraps a ring; wake says whether the kernel is to wake who reads it.
func newReader(m *ebpf.Map, wake func(on bool)) (*reader, error) {
	r, err := ringbuf.NewReader(m)
	if err != nil {
		return nil, fmt.Errorf("open ring: %w", err)
	}
	r.SetDeadline(past)
	return &reader{ring: r, wake: wake, done: make(chan struct{})}, nil
}
