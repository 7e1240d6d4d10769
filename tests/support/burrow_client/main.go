// Command burrow_client reads a Burrow with Telegraf's plugin for it, and prints what it found as JSON.
package main

import (
	"encoding/json"
	"os"
	"sort"

	"github.com/influxdata/telegraf/plugins/inputs"
	_ "github.com/influxdata/telegraf/plugins/inputs/burrow"
	"github.com/influxdata/telegraf/testutil"
	"github.com/influxdata/toml"
)

type found struct {
	Measurement string
	Tags        map[string]string
	Fields      map[string]interface{}
}

func main() {
	plugin := inputs.Inputs["burrow"]()
	settings, err := json.Marshal(os.Args[1])
	if err != nil {
		panic(err)
	}
	if err := toml.Unmarshal([]byte("servers = ["+string(settings)+"]\n"), plugin); err != nil {
		panic(err)
	}
	if initializer, ok := plugin.(interface{ Init() error }); ok {
		if err := initializer.Init(); err != nil {
			panic(err)
		}
	}
	var accumulator testutil.Accumulator
	if err := plugin.Gather(&accumulator); err != nil {
		panic(err)
	}
	for _, err := range accumulator.Errors {
		panic(err)
	}
	all := []found{}
	for _, metric := range accumulator.Metrics {
		all = append(all, found{metric.Measurement, metric.Tags, metric.Fields})
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Measurement < all[j].Measurement })
	if err := json.NewEncoder(os.Stdout).Encode(all); err != nil {
		panic(err)
	}
}
