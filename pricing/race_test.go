//go:build race

package pricing

// slowdown is what the race detector costs.
const slowdown = 20
