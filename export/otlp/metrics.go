package otlp

import (
	"encoding/hex"
	"time"

	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	"github.com/tollwire/tollwire/export/metric"
)

// snapshot returns the state of every measure, cumulative since its series began, in
// as many requests as it takes.
func snapshot(set *metric.Set, res *resourcepb.Resource, scope *commonpb.InstrumentationScope, began, now time.Time) []*colmetrics.ExportMetricsServiceRequest {
	b := &snapshotBuilder{res: res, scope: scope, now: uint64(now.UnixNano())}
	set.Collect(func(i *metric.Instrument, p *metric.Point) {
		start, attrs := uint64(p.Start.UnixNano()), metricAttrs(p.Attrs)
		if i.Kind == metric.Distribution {
			sum := p.Histogram.Sum
			dp := &metricspb.HistogramDataPoint{
				StartTimeUnixNano: start, TimeUnixNano: b.now, Attributes: attrs,
				Count: p.Histogram.Count, Sum: &sum, ExplicitBounds: i.Bounds, BucketCounts: append([]uint64(nil), p.Histogram.Buckets...),
			}
			for j := range p.Histogram.Exemplars {
				dp.Exemplars = appendExemplar(dp.Exemplars, &p.Histogram.Exemplars[j])
			}
			h := b.metric(i, dp).GetHistogram()
			h.DataPoints = append(h.DataPoints, dp)
			return
		}
		b.number(i, start, p.Value, attrs, &p.Exemplar)
	}, func(s metric.Sample) {
		i := &metric.Instrument{Name: s.Name, Unit: s.Unit, Kind: s.Kind, Help: s.Help}
		b.number(i, uint64(began.UnixNano()), s.Value, metricAttrs(s.Attrs), &metric.Exemplar{})
	})
	return b.requests
}

type snapshotBuilder struct {
	res      *resourcepb.Resource
	scope    *commonpb.InstrumentationScope
	now      uint64
	requests []*colmetrics.ExportMetricsServiceRequest
	metrics  map[string]*metricspb.Metric
	size     int // of the last request, encoded
}

// metric returns i's metric in the request that has room for point.
func (b *snapshotBuilder) metric(i *metric.Instrument, point proto.Message) *metricspb.Metric {
	size := proto.Size(point) + framing
	if b.requests == nil || b.size+size > maxRequest {
		b.requests = append(b.requests, &colmetrics.ExportMetricsServiceRequest{ResourceMetrics: []*metricspb.ResourceMetrics{{
			Resource: b.res, SchemaUrl: schemaURL, ScopeMetrics: []*metricspb.ScopeMetrics{{Scope: b.scope, SchemaUrl: schemaURL}},
		}}})
		b.metrics, b.size = make(map[string]*metricspb.Metric), proto.Size(b.res)+proto.Size(b.scope)
	}
	b.size += size
	if m := b.metrics[i.Name]; m != nil {
		return m
	}
	m := &metricspb.Metric{Name: i.Name, Unit: i.Unit, Description: i.Help}
	const cumulative = metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE
	switch i.Kind {
	case metric.Distribution:
		m.Data = &metricspb.Metric_Histogram{Histogram: &metricspb.Histogram{AggregationTemporality: cumulative}}
	case metric.Counter:
		m.Data = &metricspb.Metric_Sum{Sum: &metricspb.Sum{AggregationTemporality: cumulative, IsMonotonic: true}}
	default:
		m.Data = &metricspb.Metric_Gauge{Gauge: &metricspb.Gauge{}}
	}
	b.metrics[i.Name] = m
	b.size += proto.Size(m) + framing
	sm := b.requests[len(b.requests)-1].ResourceMetrics[0].ScopeMetrics[0]
	sm.Metrics = append(sm.Metrics, m)
	return m
}

func (b *snapshotBuilder) number(i *metric.Instrument, start uint64, v float64, attrs []*commonpb.KeyValue, e *metric.Exemplar) {
	dp := &metricspb.NumberDataPoint{TimeUnixNano: b.now, Attributes: attrs, Value: &metricspb.NumberDataPoint_AsDouble{AsDouble: v}}
	if i.Kind == metric.Counter {
		dp.StartTimeUnixNano = start
		dp.Exemplars = appendExemplar(nil, e)
		sum := b.metric(i, dp).GetSum()
		sum.DataPoints = append(sum.DataPoints, dp)
		return
	}
	g := b.metric(i, dp).GetGauge()
	g.DataPoints = append(g.DataPoints, dp)
}

func appendExemplar(l []*metricspb.Exemplar, e *metric.Exemplar) []*metricspb.Exemplar {
	trace, err := hex.DecodeString(e.TraceID)
	if err != nil || len(trace) == 0 {
		return l
	}
	x := &metricspb.Exemplar{TraceId: trace, SpanId: id(e.SpanID), Value: &metricspb.Exemplar_AsDouble{AsDouble: e.Value}}
	if !e.Time.IsZero() {
		x.TimeUnixNano = uint64(e.Time.UnixNano())
	}
	return append(l, x)
}

func metricAttrs(a []metric.Attr) []*commonpb.KeyValue {
	kv := make([]*commonpb.KeyValue, 0, len(a))
	for _, x := range a {
		if x.Value != "" {
			kv = append(kv, &commonpb.KeyValue{Key: x.Key, Value: anyValue(x.Value)})
		}
	}
	return kv
}
