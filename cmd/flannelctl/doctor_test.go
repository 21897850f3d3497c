package main_test

import (
	"testing"

	flannelctl "flanneld/cmd/flannelctl"
	"flanneld/doctor"
)

func TestTheDoctorPrintsProblemsFirstAndTheRestOnRequest(t *testing.T) {
	found := []doctor.Finding{
		{Check: "daemon", Result: doctor.Good, Evidence: "pid 1"},
		{Check: "version", Result: doctor.Warning, Evidence: "older"},
		{Check: "bridges", Result: doctor.Skipped, Evidence: "no subnet"},
		{Check: "drift", Result: doctor.Skipped, Evidence: "no daemon runs"},
		{Check: "tunnel", Result: doctor.Skipped, Evidence: "no subnet"},
		{Check: "peers", Result: doctor.Failure, Evidence: "no route", Fix: "ip route"},
	}
	const problems = "FAILURE  peers    no route\n                  → ip route\nWARNING  version  older\n"
	for verbose, want := range map[bool]string{
		false: problems + "1 failure, 1 warning, 1 ok, 3 skipped (-v prints all checks)\n",
		true: problems + "SKIPPED  bridges  no subnet\n                  also skipped for this reason: tunnel\n" +
			"SKIPPED  drift    no daemon runs\nOK       daemon   pid 1\n1 failure, 1 warning, 1 ok, 3 skipped\n",
	} {
		if got := flannelctl.Findings(found, verbose); got != want {
			t.Errorf("-v=%t prints\n%swant\n%s", verbose, got, want)
		}
	}
}
