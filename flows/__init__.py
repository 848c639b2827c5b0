"""The only room that knows Prefect: joins the others into flows, decides nothing itself."""
