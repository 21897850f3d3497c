package serve

import (
	"errors"
	"time"

	"flanneld/ip"
	"flanneld/probe"
)

// Touch gives every metric a value.
func (m *Metrics) Touch() {
	m.Pass(time.Second, nil)
	m.Probed(probe.Answered, time.Second)
	m.dumps.WithLabelValues(result(errors.New("x")))
	m.operations.WithLabelValues(ip.KindRoute.String(), "put", "ok")
	m.requests.WithLabelValues("list", "ok")
}
