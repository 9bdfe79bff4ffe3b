package metric

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
	"github.com/tollwire/tollwire/pricing"
)

// Config says what the measures carry and how much they may grow.
type Config struct {
	// NoPod leaves k8s.pod.name out.
	NoPod bool
	// Tenant adds tollwire.tenant.
	Tenant bool
	// PodLabels are added as k8s.pod.label.NAME, of those that attribution kept.
	PodLabels []string
	// MaxSeries bounds the sets of attributes that a measure is kept for (each has a
	// few fixed ones of its own beside, such as class). 0 means 2000.
	MaxSeries int
	// Idle is how long a set of attributes without a call is kept. 0 means an hour.
	Idle time.Duration
	// Native adds native buckets to every distribution.
	Native bool
	// Self are asked for the agent's measures of itself at every collection.
	Self []func(emit func(Sample))
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Sample is one point of the agent's own.
type Sample struct {
	Name  string // as Instrument.Name
	Unit  string
	Kind  Kind // Counter or Gauge
	Help  string
	Attrs []Attr
	Value float64
}

// Attr is one attribute, by OpenTelemetry's name.
type Attr struct{ Key, Value string }

// Point is the state of one series.
type Point struct {
	Attrs     []Attr // without empty values; the caller must not change it
	Start     time.Time
	Value     float64    // Counter
	Exemplar  Exemplar   // Counter
	Histogram *Histogram // Distribution; valid until the callback returns
}

// Set holds the measures of every call so far. It is safe for concurrent use.
type Set struct {
	cfg   Config
	insts [numInstruments]Instrument
	keys  []string // of the attributes that every call carries

	mu     sync.Mutex
	groups map[string]*group
	swept  time.Time
	capped uint64
	values []string // reused
	key    []byte   // reused
}

// group is every series of one set of attributes.
type group struct {
	values []string
	start  time.Time
	used   time.Time
	series map[seriesID]*series
}

type seriesID struct {
	instrument int
	sub        [3]string
}

type series struct {
	value     float64
	usd       pricing.Money // sums of money stay exact until they are shown
	exemplar  Exemplar
	histogram *Histogram
}

// The attributes of every call, by their place in a group's values.
const (
	attrProvider = iota
	attrOperation
	attrRequestModel
	attrResponseModel
	attrAddress
	attrError
	attrGraph
	attrNode
	attrService
	attrNamespace
	attrPod
	attrTenant
	attrPodLabels // the first of them
)

// New returns an empty Set. It fails when two pod labels would be one label under
// Prometheus.
func New(cfg Config) (*Set, error) {
	cfg.MaxSeries = cmp.Or(cfg.MaxSeries, 2000)
	cfg.Idle = cmp.Or(cfg.Idle, time.Hour)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Set{cfg: cfg, insts: instruments(), groups: make(map[string]*group), swept: cfg.Now()}
	s.keys = []string{
		attrProvider: "gen_ai.provider.name", attrOperation: "gen_ai.operation.name",
		attrRequestModel: "gen_ai.request.model", attrResponseModel: "gen_ai.response.model",
		attrAddress: "server.address", attrError: "error.type",
		attrGraph: "tollwire.graph", attrNode: "tollwire.node",
		attrService: "service.name", attrNamespace: "k8s.namespace.name", attrPod: "k8s.pod.name",
		attrTenant: "tollwire.tenant",
	}
	seen := map[string]string{}
	for _, l := range cfg.PodLabels {
		k := "k8s.pod.label." + l
		if was := seen[PromLabel(k)]; was != "" {
			return nil, fmt.Errorf("pod labels %q and %q: both would be the label %s", was, l, PromLabel(k))
		}
		seen[PromLabel(k)] = l
		s.keys = append(s.keys, k)
	}
	return s, nil
}

// Export counts r. A record that isn't counted (another end of the same call is)
// adds to the calls seen and to the server's measures only.
func (s *Set) Export(r *account.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.group(r)
	c, t := r.Call, &r.Call.Times
	e := Exemplar{TraceID: r.Trace.TraceID, SpanID: r.Trace.SpanID, Time: r.Time}
	sum := func(i int, v float64, sub ...string) { s.at(g, i, sub).sum(v, e) }
	observe := func(i int, v float64, sub ...string) {
		h := s.at(g, i, sub).histogram
		h.add(s.insts[i].Bounds, v, 1)
		h.mark(s.insts[i].Bounds, v, e)
	}
	took := func(i int, from, to flow.Time) {
		if d, ok := account.Known(from, to); ok {
			observe(i, d.Seconds())
		}
	}
	gaps := func(i int, all *llm.Histogram) {
		if t.Start != 0 && all.N() > 0 {
			h := s.at(g, i, nil).histogram
			h.merge(s.insts[i].Bounds, all)
			h.mark(s.insts[i].Bounds, all.Max().Seconds(), e)
		}
	}
	if c.API != "" { // no call to a model: none of the other measures is about it
		if r.Counted {
			sum(apiCalls, 1, name(c.API), string(r.Outcome()))
			if r.Price.Priced() {
				s.at(g, apiCost, []string{name(c.API)}).spend(r.Price.USD, e)
			} else {
				sum(unpricedCalls, 1, name(r.Price.Unpriced))
			}
		}
		return
	}
	per, perOK := r.PerOutputToken()

	sum(calls, 1, string(r.Outcome()), c.Role.String(), string(r.Relay))
	if c.Role == llm.RoleServer {
		took(serverDuration, t.Start, t.End)
		if c.Stream {
			took(serverFirstToken, t.Start, t.FirstContent)
		}
		if perOK {
			observe(serverPerToken, per.Seconds())
		}
	}
	if !r.Counted {
		return
	}

	took(clientDuration, t.Start, t.End)
	if c.Stream {
		took(clientFirstChunk, t.Start, t.FirstChunk)
		took(firstContent, t.Start, t.FirstContent)
		took(firstVisible, t.Start, t.FirstVisible)
		if perOK {
			observe(perOutputToken, per.Seconds())
		}
		gaps(clientPerChunk, &t.AnyGaps)
		gaps(contentGap, &t.Gaps)
	}

	in, inOK := c.Usage.InputTotal()
	out, outOK := c.Usage.OutputTotal()
	if inOK {
		observe(clientTokens, in, "input")
	}
	if outOK {
		observe(clientTokens, out, "output")
	}
	for class := range llm.NumClasses {
		if class.IsToken() && c.Usage.Has(class) {
			sum(tokens, c.Usage.Get(class), class.String(), c.Completeness.String())
		}
	}
	switch p := &r.Price; {
	case p.Unpriced != "":
		sum(unpricedCalls, 1, name(p.Unpriced))
		sum(unpricedTokens, in+out, name(p.Unpriced))
	case p.Source != "":
		s.at(g, cost, []string{p.Source}).spend(p.USD, e)
		usd, passed := p.USD.Float64(), false
		observe(callCost, usd)
		for _, edge := range expensive { // each is there from zero: the first call over it is an increase
			n := s.at(g, expensiveCalls, []string{edge.name})
			if !passed && usd > edge.usd {
				n.sum(1, e)
				passed = true
			}
		}
		if how := r.Outcome(); how != account.OutcomeOK {
			s.at(g, wasted, []string{string(how)}).spend(p.USD, e)
		}
		if c.RetryCount > 0 {
			s.at(g, retried, nil).spend(p.USD, e)
		}
		if p.HasSavings && p.Savings.Sign() >= 0 {
			s.at(g, savings, []string{"prompt_cache"}).spend(p.Savings, e)
		} else if p.HasSavings {
			s.at(g, overhead, []string{"prompt_cache"}).spend(p.Savings.Neg(), e)
		}
	}
	for _, q := range c.Quality {
		sum(quality, 1, name(q))
	}
	if c.Disagreement != "" {
		sum(disagreement, 1)
	}
	if r.Price.Disagrees {
		sum(costDisagreement, 1)
	}
}

// at returns the series of instrument i in g.
func (s *Set) at(g *group, i int, sub []string) *series {
	id := seriesID{instrument: i}
	copy(id.sub[:], sub)
	p := g.series[id]
	if p == nil {
		p = new(series)
		if s.insts[i].Kind == Distribution {
			p.histogram = &Histogram{Buckets: make([]uint64, len(s.insts[i].Bounds)+1)}
			if s.cfg.Native {
				p.histogram.Native = &Native{Schema: nativeSchema, Counts: make(map[int32]uint64)}
			}
		}
		g.series[id] = p
	}
	return p
}

func (p *series) sum(v float64, e Exemplar) {
	p.value += v
	e.Value = v
	p.exemplar = e
}

func (p *series) spend(m pricing.Money, e Exemplar) {
	p.usd = p.usd.Add(m)
	e.Value = m.Float64()
	p.exemplar = e
}

// group returns the group that r belongs to. Near the limit the models and the
// tenant are no longer kept apart, at the limit nothing that came off the wire or
// names a workload is.
func (s *Set) group(r *account.Record) *group {
	now := s.cfg.Now()
	v := s.describe(r)
	g := s.find(v)
	if g == nil && len(s.groups) >= s.soft() {
		s.sweepSometimes(now)
	}
	if g == nil && len(s.groups) >= s.soft() {
		s.capped++
		for _, i := range []int{attrRequestModel, attrResponseModel, attrTenant} {
			blur(v, i)
		}
		if g = s.find(v); g == nil && len(s.groups) >= s.cfg.MaxSeries-1 {
			for i := attrRequestModel; i < len(v); i++ {
				v[i] = account.Other
			}
			v[attrProvider], v[attrOperation] = account.Other, account.Other
			g = s.find(v)
		}
	}
	if g == nil {
		g = &group{values: slices.Clone(v), start: now, series: make(map[seriesID]*series)}
		s.groups[string(s.key)] = g
	}
	g.used = now
	return g
}

// soft is where models and tenants stop making new sets.
func (s *Set) soft() int { return s.cfg.MaxSeries - max(s.cfg.MaxSeries/10, 2) }

func blur(v []string, i int) {
	if v[i] != "" {
		v[i] = account.Other
	}
}

func (s *Set) find(v []string) *group {
	s.key = s.key[:0]
	for _, x := range v {
		s.key = append(append(s.key, x...), 0)
	}
	return s.groups[string(s.key)]
}

// describe fills s.values from r. A counted record is described by whom it is booked
// to, any other by its own process.
func (s *Set) describe(r *account.Record) []string {
	c, o := r.Call, &r.Owner
	if r.Counted {
		o = r.Booked()
	}
	v := append(s.values[:0],
		name(c.Provider), name(c.Operation), name(c.RequestModel), name(c.ResponseModel), name(c.ServerAddress), name(c.ErrorType),
		account.Label(o.Graph), account.Label(o.Node), account.Label(o.ServiceName), account.Label(o.Namespace), account.Label(o.PodName), account.Label(o.Tenant))
	if s.cfg.NoPod {
		v[attrPod] = ""
	}
	if !s.cfg.Tenant {
		v[attrTenant] = ""
	}
	v = s.podLabels(v, o)
	s.values = v
	return v
}

func (s *Set) podLabels(v []string, o *attribution.Owner) []string {
	for _, l := range s.cfg.PodLabels {
		v = append(v, account.Label(o.PodLabels[l]))
	}
	return v
}

// sweepSometimes drops the sets that were idle for long, at most once a minute.
func (s *Set) sweepSometimes(now time.Time) {
	if now.Sub(s.swept) < min(s.cfg.Idle, time.Minute) {
		return
	}
	s.swept = now
	for k, g := range s.groups {
		if now.Sub(g.used) > s.cfg.Idle {
			delete(s.groups, k)
		}
	}
}

// Collect calls point with every series, then sample with every point of the agent's
// own. A Point and what it holds are valid until the callback returns.
func (s *Set) Collect(point func(*Instrument, *Point), sample func(Sample)) {
	s.collectCalls(point)
	sample(Sample{Name: "tollwire.series.capped", Unit: "{call}", Kind: Counter,
		Help: "Calls whose models, tenant or workload were not kept apart, for the limit on series.", Value: float64(s.Capped())})
	for _, self := range s.cfg.Self {
		self(func(x Sample) { sample(x.clean()) })
	}
}

// Capped returns how many calls were counted under "other".
func (s *Set) Capped() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.capped
}

func (s *Set) collectCalls(point func(*Instrument, *Point)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweepSometimes(s.cfg.Now())
	for _, g := range s.groups {
		base := make([]Attr, 0, len(g.values)+3)
		for i, v := range g.values {
			if v != "" {
				base = append(base, Attr{s.keys[i], v})
			}
		}
		for id, p := range g.series {
			inst := &s.insts[id.instrument]
			attrs := slices.Clip(base)
			for i, k := range inst.Sub {
				if id.sub[i] != "" {
					attrs = append(attrs, Attr{k, id.sub[i]})
				}
			}
			point(inst, &Point{Attrs: attrs, Start: g.start, Value: p.value + p.usd.Float64(), Exemplar: p.exemplar, Histogram: p.histogram})
		}
	}
}
