package main

import (
	"errors"
	"time"

	"flanneld/ip"
	"flanneld/probe"
)

// Touch gives every metric a value.
func (m *Metrics) Touch() {
	m.pass(time.Second, nil)
	m.probed(probe.Answered, time.Second)
	m.dumps.WithLabelValues(result(errors.New("x")))
	m.operations.WithLabelValues(ip.KindRoute.String(), "put", "ok")
	m.requests.WithLabelValues("list", "ok")
}
