package main

import (
	"sync/atomic"

	"github.com/tollwire/tollwire/export/metric"
)

// attribution yields the measures of whose calls are whose.
func (s *self) attribution(emit func(metric.Sample)) {
	point := func(kind metric.Kind, name, help string, v float64, attrs ...metric.Attr) {
		emit(metric.Sample{Name: name, Kind: kind, Help: help, Attrs: attrs, Value: v})
	}
	o := s.owners.Stats()
	for _, p := range []struct {
		source string
		n      uint64
	}{{"proc", o.Proc}, {"cgroup", o.Cgroup}, {"none", o.Unknown}} {
		point(metric.Counter, "tollwire.attribution.processes", "Processes that made calls, by what told of them: /proc, only their cgroup, or nothing.",
			float64(p.n), metric.Attr{Key: "source", Value: p.source})
	}
	point(metric.Counter, "tollwire.attribution.incomplete", "Calls that waited in vain for the API server to name their pod.", float64(s.pipeline.settled().Unowned))
	for _, c := range []struct {
		of string
		n  *atomic.Uint64
	}{{"graph", &s.pipeline.capped.graphs}, {"node", &s.pipeline.capped.nodes}, {"tenant", &s.pipeline.capped.tenants}} {
		point(metric.Counter, "tollwire.attribution.capped", "Calls whose own graph, node or tenant became other, for the bound on distinct ones.",
			float64(c.n.Load()), metric.Attr{Key: "of", Value: c.of})
	}
	if s.pods.api != nil {
		k := s.pods.api.Stats()
		const help = "Pods of this node that are known: alive, or deleted and kept for a while."
		point(metric.Gauge, "tollwire.kubernetes.pods", help, float64(k.Pods), metric.Attr{Key: "state", Value: "alive"})
		point(metric.Gauge, "tollwire.kubernetes.pods", help, float64(k.Deleted), metric.Attr{Key: "state", Value: "deleted"})
		synced := 0.0
		if k.Synced {
			synced = 1
		}
		point(metric.Gauge, "tollwire.kubernetes.synced", "1 from when the API server has once named all pods of this node.", synced)
		for kind, n := range k.Failures {
			point(metric.Counter, "tollwire.kubernetes.failures", "Requests that the API server did not answer, by kind.", float64(n), metric.Attr{Key: "kind", Value: kind})
		}
	}
	if s.pods.runtime != nil {
		point(metric.Counter, "tollwire.runtime.failures", "Requests that the container runtime did not answer.", float64(s.pods.runtime.Failures()))
	}
	if s.config != nil {
		point(metric.Counter, "tollwire.config.reloads", "Configurations that came into force after the first.", float64(s.config.reloads.Load()))
		point(metric.Counter, "tollwire.config.errors", "Configurations that were refused.", float64(s.config.errors.Load()))
	}
}
