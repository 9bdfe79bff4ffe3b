// Package prom presents the measures to Prometheus: the text format, OpenMetrics
// with exemplars, and protobuf with native histograms, whichever the scraper asks for.
package prom

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tollwire/tollwire/export/metric"
)

// Config describes the agent to the scraper.
type Config struct {
	// Target are the agent's own resource attributes (service.name, service.version,
	// host.name, k8s.node.name …) for target_info.
	Target map[string]string
	// Timeout bounds a scrape. 0 means 10 s.
	Timeout time.Duration
	// Native keeps the native buckets that the measures have; they cross only in the
	// protobuf format. Classic ones always cross.
	Native bool
}

// Exporter answers scrapes.
type Exporter struct{ handler http.Handler }

// New returns an Exporter of set.
func New(cfg Config, set *metric.Set, log *slog.Logger) (*Exporter, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	r := prometheus.NewRegistry()
	if err := r.Register(&collector{cfg: cfg, set: set, log: log}); err != nil {
		return nil, fmt.Errorf("register measures: %w", err)
	}
	return &Exporter{handler: promhttp.HandlerFor(r, promhttp.HandlerOpts{
		ErrorLog:            errorLog{log},
		ErrorHandling:       promhttp.ContinueOnError, // one bad sample hides no other
		MaxRequestsInFlight: 4,
		Timeout:             cfg.Timeout,
		EnableOpenMetrics:   true,
	})}, nil
}

// Handler answers GET /metrics.
func (e *Exporter) Handler() http.Handler { return e.handler }

// collector turns the measures into metrics. It is unchecked in the registry's
// sense: attributes without a value are left out, so series differ in their labels.
type collector struct {
	cfg Config
	set *metric.Set
	log *slog.Logger
}

func (*collector) Describe(chan<- *prometheus.Desc) {}

func (c *collector) Collect(out chan<- prometheus.Metric) {
	var all []prometheus.Metric
	descs := map[string]*prometheus.Desc{}
	desc := func(i *metric.Instrument) *prometheus.Desc {
		n := i.PromName()
		if descs[n] == nil {
			descs[n] = prometheus.NewDesc(n, i.Help, nil, nil)
		}
		return descs[n]
	}
	c.set.Collect(func(i *metric.Instrument, p *metric.Point) {
		m := &dto.Metric{Label: labels(p.Attrs)}
		if i.Kind == metric.Distribution {
			m.Histogram = c.histogram(i.Bounds, p)
		} else {
			m.Counter = &dto.Counter{Value: &p.Value, Exemplar: exemplar(&p.Exemplar), CreatedTimestamp: timestamppb.New(p.Start)}
		}
		all = append(all, &ready{desc(i), m})
	}, func(s metric.Sample) {
		i := &metric.Instrument{Name: s.Name, Unit: s.Unit, Kind: s.Kind, Help: s.Help}
		m := &dto.Metric{Label: labels(s.Attrs)}
		if s.Kind == metric.Counter {
			m.Counter = &dto.Counter{Value: &s.Value}
		} else {
			m.Gauge = &dto.Gauge{Value: &s.Value}
		}
		all = append(all, &ready{desc(i), m})
	})
	if len(c.cfg.Target) > 0 {
		var attrs []metric.Attr
		for _, k := range slices.Sorted(maps.Keys(c.cfg.Target)) {
			attrs = append(attrs, metric.Attr{Key: k, Value: c.cfg.Target[k]})
		}
		one := 1.0
		all = append(all, &ready{prometheus.NewDesc("target_info", "The agent itself.", nil, nil),
			&dto.Metric{Label: labels(attrs), Gauge: &dto.Gauge{Value: &one}}})
	}
	for _, m := range all { // outside the set's lock: the registry may be slow
		out <- m
	}
}

// ready is a metric that was made whole.
type ready struct {
	desc *prometheus.Desc
	m    *dto.Metric
}

func (r *ready) Desc() *prometheus.Desc { return r.desc }

func (r *ready) Write(m *dto.Metric) error {
	m.Label, m.Counter, m.Gauge, m.Histogram = r.m.Label, r.m.Counter, r.m.Gauge, r.m.Histogram
	return nil
}

func labels(attrs []metric.Attr) []*dto.LabelPair {
	l := make([]*dto.LabelPair, 0, len(attrs))
	for _, a := range attrs {
		if a.Value != "" {
			n := metric.PromLabel(a.Key)
			l = append(l, &dto.LabelPair{Name: &n, Value: &a.Value})
		}
	}
	slices.SortFunc(l, func(a, b *dto.LabelPair) int {
		if a.GetName() < b.GetName() {
			return -1
		}
		return 1
	})
	return l
}

func (c *collector) histogram(bounds []float64, p *metric.Point) *dto.Histogram {
	h := p.Histogram
	count, sum := h.Count, h.Sum
	d := &dto.Histogram{SampleCount: &count, SampleSum: &sum, CreatedTimestamp: timestamppb.New(p.Start)}
	var upto uint64
	for i, n := range h.Buckets {
		bound := math.Inf(1)
		if i < len(bounds) {
			bound = bounds[i]
		}
		upto += n
		total := upto
		b := &dto.Bucket{UpperBound: &bound, CumulativeCount: &total}
		if h.Exemplars != nil {
			b.Exemplar = exemplar(&h.Exemplars[i])
		}
		d.Bucket = append(d.Bucket, b)
	}
	if c.cfg.Native && h.Native != nil {
		native(d, h.Native)
		for i := range h.Exemplars {
			if e := exemplar(&h.Exemplars[i]); e != nil {
				d.Exemplars = append(d.Exemplars, e)
			}
		}
	}
	return d
}

// native writes the buckets as Prometheus' format has them: spans of neighbours, and
// each count as the difference from the one before.
func native(d *dto.Histogram, n *metric.Native) {
	schema, zero, width := n.Schema, n.Zero, metric.NativeZero
	d.Schema, d.ZeroCount, d.ZeroThreshold = &schema, &zero, &width
	var last int32
	var before int64
	for _, i := range slices.Sorted(maps.Keys(n.Counts)) {
		if len(d.PositiveSpan) == 0 || i != last+1 {
			offset := i
			if len(d.PositiveSpan) > 0 {
				offset = i - last - 1
			}
			length := uint32(0)
			d.PositiveSpan = append(d.PositiveSpan, &dto.BucketSpan{Offset: &offset, Length: &length})
		}
		*d.PositiveSpan[len(d.PositiveSpan)-1].Length++
		count := int64(n.Counts[i])
		d.PositiveDelta = append(d.PositiveDelta, count-before)
		last, before = i, count
	}
	if len(d.PositiveSpan) == 0 {
		var nothing int32
		var none uint32
		d.PositiveSpan = []*dto.BucketSpan{{Offset: &nothing, Length: &none}}
	}
}

// exemplar returns nil where no call stands for the bucket.
func exemplar(e *metric.Exemplar) *dto.Exemplar {
	if e.TraceID == "" {
		return nil
	}
	k, trace, v := "trace_id", e.TraceID, e.Value
	d := &dto.Exemplar{Label: []*dto.LabelPair{{Name: &k, Value: &trace}}, Value: &v}
	if !e.Time.IsZero() {
		d.Timestamp = timestamppb.New(e.Time)
	}
	return d
}

// errorLog takes what promhttp says. A scraper that hangs up is said once a metric
// family, and is no fault of ours.
type errorLog struct{ log *slog.Logger }

func (l errorLog) Println(v ...any) {
	for _, a := range v {
		if err, ok := a.(error); ok && (errors.Is(err, context.Canceled) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) {
			l.log.Debug("scrape", "err", err)
			return
		}
	}
	l.log.Warn("scrape", "err", strings.TrimSpace(fmt.Sprintln(v...)))
}
