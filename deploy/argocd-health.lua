-- Argo CD's health of a WebhookSubscription, for the key
-- resource.customizations.health.bellhop.dev_WebhookSubscription of the ConfigMap argocd-cm.
-- tests/it/charts/argo.rs runs it on every state of docs/conditions.md.
local function is(status, message)
  return { status = status, message = message }
end

if obj.metadata.deletionTimestamp ~= nil then
  return is("Progressing", "The rules are being removed at the provider.")
end
local seen = obj.status
if seen == nil or seen.conditions == nil or seen.observedGeneration ~= obj.metadata.generation then
  return is("Progressing", "The operator has not looked at this version yet.")
end
local conditions = {}
for _, condition in ipairs(seen.conditions) do
  conditions[condition.type] = condition
end
local ready, stalled = conditions.Ready, conditions.Stalled
if ready == nil then
  return is("Progressing", "The operator has not looked at this version yet.")
end
-- Somebody wanted it so: `suspend: true`, or the annotation bellhop.dev/paused.
if ready.reason == "Suspended" or ready.reason == "Paused" then
  return is("Suspended", ready.message)
end
if stalled ~= nil and stalled.status == "True" then
  return is("Degraded", stalled.message)
end
if ready.status == "True" then
  return is("Healthy", ready.message)
end
return is("Progressing", ready.message)
