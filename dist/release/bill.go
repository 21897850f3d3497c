package main

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/CycloneDX/cyclonedx-go"
)

// writeBill writes the bill of materials of one architecture: every module that is linked into one of the programs, as
// the programs themselves say.
func (r release) writeBill(s stage) (err error) {
	bill, err := r.bill(s)
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(r.out, fmt.Sprintf("flanneld-%s-linux-%s.cdx.json", r.version.upgrade, s.arch)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return cyclonedx.NewBOMEncoder(f, cyclonedx.BOMFileFormatJSON).SetPretty(true).Encode(bill)
}

func (r release) bill(s stage) (*cyclonedx.BOM, error) {
	modules := map[string]*debug.Module{}
	users := map[string][]string{} // programs by module
	toolchain := ""
	for _, name := range s.programs() {
		info, err := buildinfo.ReadFile(filepath.Join(s.dir, name))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		toolchain = info.GoVersion
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			modules[m.Path] = m
			users[m.Path] = append(users[m.Path], name)
		}
	}
	components := []cyclonedx.Component{{
		BOMRef: "pkg:golang/std@" + toolchain, Type: cyclonedx.ComponentTypeLibrary, Name: "std", Version: toolchain,
		PackageURL: "pkg:golang/std@" + strings.TrimPrefix(toolchain, "go"),
	}}
	for _, m := range modules {
		url := "pkg:golang/" + m.Path + "@" + m.Version
		components = append(components, cyclonedx.Component{
			BOMRef: url, Type: cyclonedx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, PackageURL: url,
			Properties: &[]cyclonedx.Property{{Name: "go:sum", Value: m.Sum},
				{Name: "go:linked-into", Value: strings.Join(users[m.Path], " ")}},
		})
	}
	slices.SortFunc(components, func(a, b cyclonedx.Component) int { return strings.Compare(a.BOMRef, b.BOMRef) })
	bill := cyclonedx.NewBOM()
	bill.Metadata = &cyclonedx.Metadata{
		Timestamp: r.time.Format("2006-01-02T15:04:05Z"),
		Component: &cyclonedx.Component{
			BOMRef: "flanneld", Type: cyclonedx.ComponentTypeApplication, Name: "flanneld", Version: r.version.git,
			Licenses: &cyclonedx.Licenses{{License: &cyclonedx.License{ID: "Apache-2.0"}}},
		},
	}
	bill.Components = &components
	return bill, nil
}
