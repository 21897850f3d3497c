package promcheck_test

import (
	"encoding/json"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

const folder = "../../dist/monitoring/"

func TestAlertRulesAreGood(t *testing.T) {
	groups, errs := rulefmt.ParseFile(folder+"alerts.yml", false, model.UTF8Validation, parser.NewParser(parser.Options{}),
		slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Error(err)
	}
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" || r.Labels["severity"] == "" || r.Annotations["summary"] == "" ||
				r.Annotations["description"] == "" {
				t.Errorf("rule %+v lacks a name, a severity, a summary or a description", r)
			}
		}
	}
}

func TestEveryExpressionOfTheDashboardParses(t *testing.T) {
	text, err := os.ReadFile(folder + "dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	p, n := parser.NewParser(parser.Options{}), 0
	for _, panel := range d.Panels {
		for _, target := range panel.Targets {
			n++
			if _, err := p.ParseExpr(strings.ReplaceAll(target.Expr, "$instance", ".*")); err != nil {
				t.Errorf("%s: %s: %v", panel.Title, target.Expr, err)
			}
		}
	}
	if n < 10 {
		t.Errorf("%d expressions, want a dashboard", n)
	}
}
