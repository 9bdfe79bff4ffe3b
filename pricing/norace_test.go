//go:build !race

package pricing

const slowdown = 1
