package probes

import "testing"

// What the tests outside of the package share with those inside.
var AnyWay = anyWay

func Watch(t *testing.T) { watch(t) }

// CheckKernel is Check without what loads taps, which takes half a minute in an emulated
// machine: its report has the features and the capabilities.
func CheckKernel(cfg Config) (*Report, error) {
	c, err := checkKernel(cfg)
	if err != nil {
		return nil, err
	}
	return c.Report, nil
}
