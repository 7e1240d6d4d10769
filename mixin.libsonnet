// A Prometheus mixin over the rules and dashboards of this repository, for those who deploy by Jsonnet.
// Conventions: monitoring.mixins.dev. Alerts of the order system are left out unless asked for.
local files = {
  'brokers.yml': importstr 'alerts/rules/brokers.yml',
  'consumer-groups.yml': importstr 'alerts/rules/consumer-groups.yml',
  'databases.yml': importstr 'alerts/rules/databases.yml',
  'monitoring.yml': importstr 'alerts/rules/monitoring.yml',
};
local orderFiles = {
  'order-services.yml': importstr 'alerts/rules/order-services.yml',
  'slo.yml': importstr 'alerts/rules/slo.yml',
};
local dashboards = {
  'consumer-groups.json': import 'dashboards/generated/consumer-groups.json',
  'database-pools.json': import 'dashboards/generated/database-pools.json',
  'monitor.json': import 'dashboards/generated/monitor.json',
};
local orderDashboards = {
  'order-flow.json': import 'dashboards/generated/order-flow.json',
  'overview.json': import 'dashboards/generated/overview.json',
};

{
  _config+:: {
    // whether the order system of this repository runs there, too
    orderServices: false,
  },

  local wanted = files + (if $._config.orderServices then orderFiles else {}),
  local groups = std.flatMap(function(name) std.parseYaml(wanted[name]).groups, std.objectFields(wanted)),
  local isOurs(rule) =
    $._config.orderServices || !std.objectHas(rule, 'alert') || !std.startsWith(rule.alert, 'Order'),
  local only(kind) = std.filter(
    function(group) std.length(group.rules) > 0,
    [
      group { rules: std.filter(function(rule) std.objectHas(rule, kind) && isOurs(rule), group.rules) }
      for group in groups
    ]
  ),

  prometheusAlerts+:: { groups+: only('alert') },
  prometheusRules+:: { groups+: only('record') },
  grafanaDashboards+:: dashboards + (if $._config.orderServices then orderDashboards else {}),
}
