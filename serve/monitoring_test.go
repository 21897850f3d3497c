package serve_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"flanneld/api"
)

// TestRulesAndDashboardUseMetricsThatExist looks for names that the daemon does not have. That the expressions are good
// is checked by the code of Prometheus, in hack/promcheck.
func TestRulesAndDashboardUseMetricsThatExist(t *testing.T) {
	until := time.Now().Add(time.Hour)
	m := metrics(t, api.Status{Devices: []string{"flannel.1"}, Drift: map[string]uint64{"fdb": 1},
		Lease: api.Lease{Until: &until}, Probes: &api.ProbeSummary{}, Firewall: &api.Firewall{},
		Datapath: map[string]uint64{"sent": 1}})
	m.Touch()
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName(), f.GetName()+"_bucket")
	}
	for _, f := range families {
		doc, err := os.ReadFile("../docs/monitoring.md")
		if err != nil {
			t.Fatal(err)
		}
		if name := f.GetName(); strings.HasPrefix(name, "flannel_") && !strings.Contains(string(doc), name) {
			t.Errorf("docs/monitoring.md does not name %s", name)
		}
	}
	for _, file := range []string{"alerts.yml", "dashboard.json"} {
		text, err := os.ReadFile("../dist/monitoring/" + file)
		if err != nil {
			t.Fatal(err)
		}
		used := regexp.MustCompile(`\bflannel_[a-z_]+`).FindAllString(string(text), -1)
		if len(used) < 10 {
			t.Errorf("%s uses %d metrics", file, len(used))
		}
		for _, name := range used {
			if !slices.Contains(names, name) {
				t.Errorf("%s uses %s, which the daemon does not have", file, name)
			}
		}
	}
}
