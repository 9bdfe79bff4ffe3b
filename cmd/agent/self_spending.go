package main

import (
	"github.com/tollwire/tollwire/export/metric"
	"github.com/tollwire/tollwire/pricing"
)

// spending yields the measures of budgets and of what a node uses beside models.
func (s *self) spending(emit func(metric.Sample)) {
	for _, b := range s.budgets.States() {
		attrs := []metric.Attr{{Key: "budget", Value: b.Label()}, {Key: "period", Value: b.Period}, {Key: "scope", Value: b.Scope}}
		gauge := func(name, unit, help string, v float64) {
			emit(metric.Sample{Name: name, Unit: unit, Kind: metric.Gauge, Help: help, Attrs: attrs, Value: v})
		}
		gauge("tollwire.budget.spent.usd", "{USD}", "What this node spent of a budget in its period.", b.Spent.Float64())
		gauge("tollwire.budget.limit.usd", "{USD}", "The budget's limit.", b.Limit.Float64())
		gauge("tollwire.budget.burn_rate", "{limit}", "The part of the limit that is spent over the part of the period that has passed.", b.BurnRate)
	}
	for _, r := range s.resources.States() {
		whose := []metric.Attr{
			{Key: "tollwire.graph", Value: r.Graph}, {Key: "tollwire.node", Value: r.Node}, {Key: "service.name", Value: r.Service},
			{Key: "k8s.namespace.name", Value: r.Namespace}, {Key: "k8s.pod.name", Value: r.Pod},
		}
		count := func(name, unit, help string, v float64) {
			emit(metric.Sample{Name: name, Unit: unit, Kind: metric.Counter, Help: help, Attrs: whose, Value: v})
		}
		count("tollwire.resource.cpu", "s", "Time of processors that programs of this node used.", r.CPUSeconds)
		count("tollwire.resource.memory.gib_hours", "{GiBy.h}", "Memory in use that the kernel could not take back at once, over time.", r.MemoryGiBHours)
		count("tollwire.resource.network", "By", "Bytes received and sent.", float64(r.NetworkBytes))
		for _, c := range []struct {
			resource string
			usd      pricing.Money
		}{{"cpu", r.CPU}, {"memory", r.Memory}, {"network", r.Network}} {
			emit(metric.Sample{
				Name: "tollwire.resource.cost.usd", Unit: "{USD}", Kind: metric.Counter, Help: "What programs of this node cost at the price book's rates.",
				Attrs: append(whose[:len(whose):len(whose)], metric.Attr{Key: "resource", Value: c.resource}), Value: c.usd.Float64(),
			})
		}
	}
}
