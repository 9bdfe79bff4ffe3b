package main

import (
	"github.com/tollwire/tollwire/decoder"
	"github.com/tollwire/tollwire/export/metric"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/probes"
)

// attach says that the node is tapped.
func (s *self) attach(t taps) {
	s.taps = t
	s.attached.Store(true)
}

// targets are the files and sockets that are tapped.
func (s *self) targets() []probes.Attachment {
	if !s.attached.Load() {
		return nil
	}
	return s.taps.Attached()
}

// unobservable are the processes whose TLS cannot be read.
func (s *self) unobservable() []probes.Unobservable {
	if !s.attached.Load() {
		return nil
	}
	return s.taps.Unobservable()
}

// capture yields the measures of the taps, and of what became of their bytes.
func (s *self) capture(emit func(metric.Sample), user *decoder.Stats) {
	count := func(name, unit, help string, v uint64, attrs ...metric.Attr) {
		emit(metric.Sample{Name: name, Unit: unit, Kind: metric.Counter, Help: help, Attrs: attrs, Value: float64(v)})
	}
	const bytesHelp = "Bytes of programs by what became of them: decoded, ignored (nobody needs them) or dropped, with the reason. Their sum is tollwire.capture.seen, less what is in flight."
	bytes := func(n uint64, fate, reason, source string) {
		count("tollwire.capture", "By", bytesHelp, n, metric.Attr{Key: "fate", Value: fate}, metric.Attr{Key: "reason", Value: reason}, metric.Attr{Key: "source", Value: source})
	}
	var taps probes.Stats
	if s.attached.Load() {
		taps = s.taps.Stats()
	}
	for src, t := range taps.Sources {
		name := flow.Source(src).String()
		if t.LostEnds > 0 || t.Calls > 0 {
			count("tollwire.capture.ends.lost", "", "Ends of connections, directions and (source none) processes that the ring had no room for.", t.LostEnds, metric.Attr{Key: "source", Value: name})
		}
		if t.Missed > 0 || t.Calls > 0 {
			count("tollwire.capture.calls.missed", "", "Times that the kernel left out a tap's program, as another task was preempted inside of it or in bpf(2) with a map, or too many calls slept: what these calls moved the socket's next call finds, and counts as dropped, missed.", t.Missed, metric.Attr{Key: "source", Value: name})
		}
		if t.Calls == 0 {
			continue
		}
		count("tollwire.capture.seen", "By", "Bytes that tapped calls said they moved, counted from their return values.", t.Seen, metric.Attr{Key: "source", Value: name})
		bytes(t.Ignored, "ignored", "verdict", name)
		for r, n := range t.Dropped {
			if n > 0 {
				bytes(n, "dropped", flow.GapReason(r).String(), name)
			}
		}
	}
	bytes(user.Decoded, "decoded", "", "")
	bytes(user.Ignored, "ignored", "not_http", "")
	bytes(user.Refused, "dropped", "refused", "")
	bytes(user.Duplicate, "dropped", "duplicate", "")
	for r := flow.GapIgnored + 1; r < flow.NumGapReasons; r++ {
		count("tollwire.decode.lost", "By", "Bytes that never came to where they were to be decoded, by reason.", user.Lost[r], metric.Attr{Key: "reason", Value: r.String()})
	}

	gauge := func(name, unit, help string, v int, attrs ...metric.Attr) {
		emit(metric.Sample{Name: name, Unit: unit, Kind: metric.Gauge, Help: help, Attrs: attrs, Value: float64(v)})
	}
	attached := map[string]int{}
	for _, a := range s.targets() {
		attached[a.Source.String()]++
	}
	for src, n := range attached {
		gauge("tollwire.tap.attached", "", "Files and sockets that a tap is attached to.", n, metric.Attr{Key: "source", Value: src})
	}
	unseen := map[[2]string]int{}
	for _, u := range s.unobservable() {
		unseen[[2]string{u.Stack, u.Reason}]++
	}
	for k, n := range unseen {
		gauge("tollwire.process.unobservable", "", "Processes whose TLS cannot be read, by stack and reason.", n,
			metric.Attr{Key: "stack", Value: k[0]}, metric.Attr{Key: "reason", Value: k[1]})
	}
}
