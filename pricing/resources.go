package pricing

import "time"

// Resources are a node's own rates, from the config: what is not set costs nothing.
type Resources struct {
	CPUSecond     Money
	MemoryGiBHour Money
	NetworkGiB    Money
}

// Use is what some processes used of a machine.
type Use struct {
	CPU     time.Duration // of all its processors together
	Memory  uint64        // byte-seconds
	Network uint64        // bytes, both directions
}

// Bill is what a Use costs, by resource.
type Bill struct{ CPU, Memory, Network Money }

// Cost prices use.
func (r Resources) Cost(u Use) Bill {
	return Bill{
		CPU:     r.CPUSecond.MulDiv(uint64(max(u.CPU, 0)), uint64(time.Second)),
		Memory:  r.MemoryGiBHour.MulDiv(u.Memory, uint64(time.Hour/time.Second)<<30),
		Network: r.NetworkGiB.MulDiv(u.Network, 1<<30),
	}
}

// Resources returns the node's rates.
func (b *Book) Resources() Resources { return b.resources }
