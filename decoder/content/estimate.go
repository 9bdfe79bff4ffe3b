package content

// estimate counts what the provider did not state.
func (m *Meter) estimate() {}
