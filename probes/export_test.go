package probes

// CheckKernel is Check without what loads taps, which takes half a minute in an emulated
// machine: its report has the features and the capabilities.
func CheckKernel(cfg Config) (*Report, error) {
	c, err := checkKernel(cfg)
	if err != nil {
		return nil, err
	}
	return c.Report, nil
}
