IF SCHEMA_ID('stg') IS NULL EXEC('CREATE SCHEMA [stg]');
GO
IF SCHEMA_ID('dim') IS NULL EXEC('CREATE SCHEMA [dim]');
GO
IF SCHEMA_ID('fact') IS NULL EXEC('CREATE SCHEMA [fact]');
GO
CREATE TABLE [stg].[headwater_publish] ([table_name] VARCHAR(64) NOT NULL, [version] BIGINT, [committed] BIGINT, [row_count] BIGINT, [published_at] VARCHAR(32)) WITH (HEAP, DISTRIBUTION = REPLICATE);
GO
CREATE TABLE [fact].[agg_category_metrics] (
  [category_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [sales_date] DATE NOT NULL,
  [currency] VARCHAR(12) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [orders] BIGINT NOT NULL,
  [units] BIGINT NOT NULL,
  [gross] DECIMAL(18,2) NOT NULL,
  [revenue] DECIMAL(18,2) NOT NULL,
  [reporting_currency] VARCHAR(12) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [reporting_revenue] DECIMAL(18,2) NULL
)
WITH (CLUSTERED COLUMNSTORE INDEX, DISTRIBUTION = HASH ([category_id]));
GO
CREATE STATISTICS [stats_agg_category_metrics_category_id] ON [fact].[agg_category_metrics] ([category_id]);
GO
CREATE STATISTICS [stats_agg_category_metrics_sales_date] ON [fact].[agg_category_metrics] ([sales_date]);
GO
CREATE STATISTICS [stats_agg_category_metrics_currency] ON [fact].[agg_category_metrics] ([currency]);
GO
INSERT INTO [stg].[headwater_publish] ([table_name]) VALUES ('agg_category_metrics');
GO
CREATE TABLE [fact].[agg_hourly_metrics] (
  [hour] DATETIME2(6) NOT NULL,
  [type] VARCHAR(400) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [region] VARCHAR(400) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [currency] VARCHAR(12) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [is_closed] BIT NOT NULL,
  [events] BIGINT NOT NULL,
  [latency_avg_ms] DECIMAL(18,3) NOT NULL,
  [latency_p95_ms] BIGINT NULL,
  [revenue] DECIMAL(18,2) NULL,
  [reporting_currency] VARCHAR(12) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [reporting_revenue] DECIMAL(18,2) NULL,
  [latency_sum_ms] DECIMAL(25,0) NOT NULL,
  [latency_le_100] BIGINT NOT NULL,
  [latency_le_250] BIGINT NOT NULL,
  [latency_le_500] BIGINT NOT NULL,
  [latency_le_1000] BIGINT NOT NULL,
  [latency_le_2500] BIGINT NOT NULL,
  [latency_le_5000] BIGINT NOT NULL,
  [latency_le_10000] BIGINT NOT NULL,
  [latency_le_30000] BIGINT NOT NULL,
  [latency_le_60000] BIGINT NOT NULL,
  [latency_le_300000] BIGINT NOT NULL,
  [latency_le_600000] BIGINT NOT NULL,
  [latency_le_3600000] BIGINT NOT NULL,
  [latency_le_86400000] BIGINT NOT NULL
)
WITH (CLUSTERED COLUMNSTORE INDEX, DISTRIBUTION = HASH ([hour]));
GO
CREATE STATISTICS [stats_agg_hourly_metrics_hour] ON [fact].[agg_hourly_metrics] ([hour]);
GO
CREATE STATISTICS [stats_agg_hourly_metrics_type] ON [fact].[agg_hourly_metrics] ([type]);
GO
CREATE STATISTICS [stats_agg_hourly_metrics_region] ON [fact].[agg_hourly_metrics] ([region]);
GO
CREATE STATISTICS [stats_agg_hourly_metrics_currency] ON [fact].[agg_hourly_metrics] ([currency]);
GO
INSERT INTO [stg].[headwater_publish] ([table_name]) VALUES ('agg_hourly_metrics');
GO
CREATE TABLE [fact].[agg_user_metrics] (
  [customer_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [currency] VARCHAR(12) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [user_key] BIGINT NOT NULL,
  [orders] BIGINT NOT NULL,
  [lost_orders] BIGINT NOT NULL,
  [items] BIGINT NOT NULL,
  [gross] DECIMAL(18,2) NOT NULL,
  [revenue] DECIMAL(18,2) NOT NULL,
  [first_order_at] DATETIME2(6) NOT NULL,
  [last_order_at] DATETIME2(6) NOT NULL,
  [reporting_currency] VARCHAR(12) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [reporting_revenue] DECIMAL(18,2) NULL
)
WITH (CLUSTERED COLUMNSTORE INDEX, DISTRIBUTION = HASH ([customer_id]));
GO
CREATE STATISTICS [stats_agg_user_metrics_customer_id] ON [fact].[agg_user_metrics] ([customer_id]);
GO
CREATE STATISTICS [stats_agg_user_metrics_currency] ON [fact].[agg_user_metrics] ([currency]);
GO
CREATE STATISTICS [stats_agg_user_metrics_user_key] ON [fact].[agg_user_metrics] ([user_key]);
GO
INSERT INTO [stg].[headwater_publish] ([table_name]) VALUES ('agg_user_metrics');
GO
CREATE TABLE [dim].[dim_category] (
  [category_key] BIGINT NOT NULL,
  [category_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [name] VARCHAR(400) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [parent_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [is_inferred] BIT NOT NULL
)
WITH (CLUSTERED COLUMNSTORE INDEX, DISTRIBUTION = REPLICATE);
GO
CREATE STATISTICS [stats_dim_category_category_key] ON [dim].[dim_category] ([category_key]);
GO
INSERT INTO [stg].[headwater_publish] ([table_name]) VALUES ('dim_category');
GO
CREATE TABLE [dim].[dim_date] (
  [date_key] INT NOT NULL,
  [day] DATE NOT NULL,
  [year] INT NOT NULL,
  [quarter] INT NOT NULL,
  [month] INT NOT NULL,
  [day_of_month] INT NOT NULL,
  [day_of_year] INT NOT NULL,
  [iso_year] INT NOT NULL,
  [iso_week] INT NOT NULL,
  [day_of_week] INT NOT NULL,
  [is_weekend] BIT NOT NULL,
  [is_month_end] BIT NOT NULL,
  [fiscal_year] INT NOT NULL,
  [fiscal_quarter] INT NOT NULL,
  [fiscal_month] INT NOT NULL
)
WITH (CLUSTERED COLUMNSTORE INDEX, DISTRIBUTION = REPLICATE);
GO
CREATE STATISTICS [stats_dim_date_date_key] ON [dim].[dim_date] ([date_key]);
GO
INSERT INTO [stg].[headwater_publish] ([table_name]) VALUES ('dim_date');
GO
CREATE TABLE [dim].[dim_location] (
  [location_key] BIGINT NOT NULL,
  [address_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [customer_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [street] VARCHAR(800) COLLATE Latin1_General_100_BIN2_UTF8 MASKED WITH (FUNCTION = 'default()') NULL,
  [city] VARCHAR(400) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [postal_code] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [region] VARCHAR(400) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [country_code] VARCHAR(8) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [effective_from] DATETIME2(6) NOT NULL,
  [effective_to] DATETIME2(6) NULL,
  [is_current] BIT NOT NULL,
  [is_inferred] BIT NOT NULL
)
WITH (CLUSTERED COLUMNSTORE INDEX, DISTRIBUTION = REPLICATE);
GO
CREATE STATISTICS [stats_dim_location_location_key] ON [dim].[dim_location] ([location_key]);
GO
INSERT INTO [stg].[headwater_publish] ([table_name]) VALUES ('dim_location');
GO
CREATE TABLE [dim].[dim_product] (
  [product_key] BIGINT NOT NULL,
  [product_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [category_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [name] VARCHAR(800) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [brand] VARCHAR(400) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [price] DECIMAL(12,2) NULL,
  [currency] VARCHAR(12) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [weight_grams] INT NULL,
  [active] BIT NULL,
  [is_inferred] BIT NOT NULL
)
WITH (CLUSTERED COLUMNSTORE INDEX, DISTRIBUTION = REPLICATE);
GO
CREATE STATISTICS [stats_dim_product_product_key] ON [dim].[dim_product] ([product_key]);
GO
INSERT INTO [stg].[headwater_publish] ([table_name]) VALUES ('dim_product');
GO
CREATE TABLE [dim].[dim_store] (
  [store_key] BIGINT NOT NULL,
  [store_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [name] VARCHAR(400) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [city] VARCHAR(400) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [country_code] VARCHAR(8) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [opened_on] DATE NULL,
  [effective_from] DATETIME2(6) NOT NULL,
  [effective_to] DATETIME2(6) NULL,
  [is_current] BIT NOT NULL,
  [is_inferred] BIT NOT NULL
)
WITH (CLUSTERED COLUMNSTORE INDEX, DISTRIBUTION = REPLICATE);
GO
CREATE STATISTICS [stats_dim_store_store_key] ON [dim].[dim_store] ([store_key]);
GO
INSERT INTO [stg].[headwater_publish] ([table_name]) VALUES ('dim_store');
GO
CREATE TABLE [dim].[dim_telco_customer] (
  [telco_customer_key] BIGINT NOT NULL,
  [customer_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [gender] VARCHAR(40) COLLATE Latin1_General_100_BIN2_UTF8 MASKED WITH (FUNCTION = 'default()') NULL,
  [senior_citizen] BIT NULL,
  [partner] BIT NULL,
  [dependents] BIT NULL,
  [tenure] INT NULL,
  [phone_service] BIT NULL,
  [internet_service] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [contract] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [monthly_charges] DECIMAL(10,2) NULL,
  [total_charges] DECIMAL(14,2) NULL,
  [updated_at] DATETIME2(6) NOT NULL,
  [year] INT NOT NULL,
  [month] INT NOT NULL,
  [day] INT NOT NULL,
  [hour] INT NOT NULL,
  [first_name] VARCHAR(400) COLLATE Latin1_General_100_BIN2_UTF8 MASKED WITH (FUNCTION = 'default()') NULL,
  [last_name] VARCHAR(400) COLLATE Latin1_General_100_BIN2_UTF8 MASKED WITH (FUNCTION = 'default()') NULL,
  [email] VARCHAR(1016) COLLATE Latin1_General_100_BIN2_UTF8 MASKED WITH (FUNCTION = 'default()') NULL,
  [is_inferred] BIT NOT NULL
)
WITH (CLUSTERED COLUMNSTORE INDEX, DISTRIBUTION = REPLICATE);
GO
CREATE STATISTICS [stats_dim_telco_customer_telco_customer_key] ON [dim].[dim_telco_customer] ([telco_customer_key]);
GO
CREATE STATISTICS [stats_dim_telco_customer_year] ON [dim].[dim_telco_customer] ([year]);
GO
CREATE STATISTICS [stats_dim_telco_customer_month] ON [dim].[dim_telco_customer] ([month]);
GO
CREATE STATISTICS [stats_dim_telco_customer_day] ON [dim].[dim_telco_customer] ([day]);
GO
CREATE STATISTICS [stats_dim_telco_customer_hour] ON [dim].[dim_telco_customer] ([hour]);
GO
INSERT INTO [stg].[headwater_publish] ([table_name]) VALUES ('dim_telco_customer');
GO
CREATE TABLE [dim].[dim_time] (
  [time_key] BIGINT NOT NULL,
  [starts_at] DATETIME2(6) NOT NULL,
  [day] DATE NOT NULL,
  [year] INT NOT NULL,
  [quarter] INT NOT NULL,
  [month] INT NOT NULL,
  [day_of_month] INT NOT NULL,
  [hour] INT NOT NULL,
  [iso_week] INT NOT NULL,
  [day_of_week] INT NOT NULL,
  [is_weekend] BIT NOT NULL
)
WITH (CLUSTERED COLUMNSTORE INDEX, DISTRIBUTION = REPLICATE);
GO
CREATE STATISTICS [stats_dim_time_time_key] ON [dim].[dim_time] ([time_key]);
GO
INSERT INTO [stg].[headwater_publish] ([table_name]) VALUES ('dim_time');
GO
CREATE TABLE [dim].[dim_users] (
  [user_key] BIGINT NOT NULL,
  [customer_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [first_name] VARCHAR(400) COLLATE Latin1_General_100_BIN2_UTF8 MASKED WITH (FUNCTION = 'default()') NULL,
  [last_name] VARCHAR(400) COLLATE Latin1_General_100_BIN2_UTF8 MASKED WITH (FUNCTION = 'default()') NULL,
  [email] VARCHAR(1016) COLLATE Latin1_General_100_BIN2_UTF8 MASKED WITH (FUNCTION = 'default()') NULL,
  [phone] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 MASKED WITH (FUNCTION = 'default()') NULL,
  [birth_date] DATE MASKED WITH (FUNCTION = 'default()') NULL,
  [loyalty_tier] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [address_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [marketing_opt_in] BIT NULL,
  [effective_from] DATETIME2(6) NOT NULL,
  [effective_to] DATETIME2(6) NULL,
  [is_current] BIT NOT NULL,
  [is_inferred] BIT NOT NULL
)
WITH (CLUSTERED COLUMNSTORE INDEX, DISTRIBUTION = REPLICATE);
GO
CREATE STATISTICS [stats_dim_users_user_key] ON [dim].[dim_users] ([user_key]);
GO
INSERT INTO [stg].[headwater_publish] ([table_name]) VALUES ('dim_users');
GO
CREATE TABLE [fact].[fact_inventory] (
  [product_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [store_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [snapshot_date] DATE NOT NULL,
  [snapshot_month] DATE NOT NULL,
  [store_key] BIGINT NOT NULL,
  [product_key] BIGINT NOT NULL,
  [quantity] INT NOT NULL,
  [reorder_level] INT NOT NULL,
  [changed_at] DATETIME2(6) NOT NULL,
  [is_carried] BIT NOT NULL
)
WITH (CLUSTERED COLUMNSTORE INDEX, DISTRIBUTION = HASH ([product_id]), PARTITION ([snapshot_month] RANGE RIGHT FOR VALUES ('2025-11-01', '2025-12-01', '2026-01-01')));
GO
CREATE STATISTICS [stats_fact_inventory_product_id] ON [fact].[fact_inventory] ([product_id]);
GO
CREATE STATISTICS [stats_fact_inventory_store_id] ON [fact].[fact_inventory] ([store_id]);
GO
CREATE STATISTICS [stats_fact_inventory_snapshot_date] ON [fact].[fact_inventory] ([snapshot_date]);
GO
CREATE STATISTICS [stats_fact_inventory_snapshot_month] ON [fact].[fact_inventory] ([snapshot_month]);
GO
CREATE STATISTICS [stats_fact_inventory_store_key] ON [fact].[fact_inventory] ([store_key]);
GO
CREATE STATISTICS [stats_fact_inventory_product_key] ON [fact].[fact_inventory] ([product_key]);
GO
INSERT INTO [stg].[headwater_publish] ([table_name]) VALUES ('fact_inventory');
GO
CREATE TABLE [fact].[fact_order_items] (
  [order_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [line_number] INT NOT NULL,
  [sold_month] DATE NOT NULL,
  [product_key] BIGINT NOT NULL,
  [user_key] BIGINT NULL,
  [time_key] BIGINT NOT NULL,
  [product_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [order_status] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [sold_at] DATETIME2(6) NOT NULL,
  [quantity] INT NOT NULL,
  [cancelled_quantity] INT NULL,
  [returned_quantity] INT NULL,
  [unit_price] DECIMAL(12,2) NOT NULL,
  [line_total] DECIMAL(12,2) NOT NULL,
  [net_total] DECIMAL(12,2) NULL,
  [currency] VARCHAR(12) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [reporting_currency] VARCHAR(12) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [reporting_rate] DECIMAL(18,8) NULL,
  [reporting_line_total] DECIMAL(18,2) NULL,
  [reporting_net_total] DECIMAL(18,2) NULL
)
WITH (CLUSTERED COLUMNSTORE INDEX, DISTRIBUTION = HASH ([order_id]), PARTITION ([sold_month] RANGE RIGHT FOR VALUES ('2025-11-01', '2025-12-01', '2026-01-01')));
GO
CREATE STATISTICS [stats_fact_order_items_order_id] ON [fact].[fact_order_items] ([order_id]);
GO
CREATE STATISTICS [stats_fact_order_items_line_number] ON [fact].[fact_order_items] ([line_number]);
GO
CREATE STATISTICS [stats_fact_order_items_sold_month] ON [fact].[fact_order_items] ([sold_month]);
GO
CREATE STATISTICS [stats_fact_order_items_product_key] ON [fact].[fact_order_items] ([product_key]);
GO
CREATE STATISTICS [stats_fact_order_items_user_key] ON [fact].[fact_order_items] ([user_key]);
GO
CREATE STATISTICS [stats_fact_order_items_time_key] ON [fact].[fact_order_items] ([time_key]);
GO
INSERT INTO [stg].[headwater_publish] ([table_name]) VALUES ('fact_order_items');
GO
CREATE TABLE [fact].[fact_orders] (
  [order_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [order_month] DATE NOT NULL,
  [user_key] BIGINT NOT NULL,
  [location_key] BIGINT NOT NULL,
  [store_key] BIGINT NULL,
  [time_key] BIGINT NOT NULL,
  [customer_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [address_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [store_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [channel] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [status] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [status_at] DATETIME2(6) NOT NULL,
  [placed_at] DATETIME2(6) NOT NULL,
  [cancelled_at] DATETIME2(6) NULL,
  [returned_at] DATETIME2(6) NULL,
  [item_count] INT NULL,
  [subtotal] DECIMAL(12,2) NULL,
  [shipping_fee] DECIMAL(12,2) NULL,
  [total] DECIMAL(12,2) NULL,
  [net_total] DECIMAL(12,2) NULL,
  [currency] VARCHAR(12) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [reporting_currency] VARCHAR(12) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [reporting_rate] DECIMAL(18,8) NULL,
  [reporting_total] DECIMAL(18,2) NULL,
  [reporting_net_total] DECIMAL(18,2) NULL
)
WITH (CLUSTERED COLUMNSTORE INDEX, DISTRIBUTION = HASH ([order_id]), PARTITION ([order_month] RANGE RIGHT FOR VALUES ('2025-11-01', '2025-12-01', '2026-01-01')));
GO
CREATE STATISTICS [stats_fact_orders_order_id] ON [fact].[fact_orders] ([order_id]);
GO
CREATE STATISTICS [stats_fact_orders_order_month] ON [fact].[fact_orders] ([order_month]);
GO
CREATE STATISTICS [stats_fact_orders_user_key] ON [fact].[fact_orders] ([user_key]);
GO
CREATE STATISTICS [stats_fact_orders_location_key] ON [fact].[fact_orders] ([location_key]);
GO
CREATE STATISTICS [stats_fact_orders_store_key] ON [fact].[fact_orders] ([store_key]);
GO
CREATE STATISTICS [stats_fact_orders_time_key] ON [fact].[fact_orders] ([time_key]);
GO
INSERT INTO [stg].[headwater_publish] ([table_name]) VALUES ('fact_orders');
GO
CREATE TABLE [fact].[fact_payments] (
  [payment_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [paid_month] DATE NOT NULL,
  [order_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [user_key] BIGINT NULL,
  [time_key] BIGINT NOT NULL,
  [method] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [status] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [paid_at] DATETIME2(6) NOT NULL,
  [amount] DECIMAL(12,2) NOT NULL,
  [net_amount] DECIMAL(12,2) NOT NULL,
  [currency] VARCHAR(12) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL,
  [reporting_currency] VARCHAR(12) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [reporting_rate] DECIMAL(18,8) NULL,
  [reporting_net_amount] DECIMAL(18,2) NULL
)
WITH (CLUSTERED COLUMNSTORE INDEX, DISTRIBUTION = HASH ([payment_id]), PARTITION ([paid_month] RANGE RIGHT FOR VALUES ('2025-11-01', '2025-12-01', '2026-01-01')));
GO
CREATE STATISTICS [stats_fact_payments_payment_id] ON [fact].[fact_payments] ([payment_id]);
GO
CREATE STATISTICS [stats_fact_payments_paid_month] ON [fact].[fact_payments] ([paid_month]);
GO
CREATE STATISTICS [stats_fact_payments_user_key] ON [fact].[fact_payments] ([user_key]);
GO
CREATE STATISTICS [stats_fact_payments_time_key] ON [fact].[fact_payments] ([time_key]);
GO
INSERT INTO [stg].[headwater_publish] ([table_name]) VALUES ('fact_payments');
GO
IF DATABASE_PRINCIPAL_ID('readers') IS NULL CREATE ROLE [readers];
GO
IF DATABASE_PRINCIPAL_ID('stewards') IS NULL CREATE ROLE [stewards];
GO
GRANT SELECT ON SCHEMA::[dim] TO [readers];
GO
GRANT SELECT ON SCHEMA::[dim] TO [stewards];
GO
GRANT SELECT ON SCHEMA::[fact] TO [readers];
GO
GRANT SELECT ON SCHEMA::[fact] TO [stewards];
GO
GRANT UNMASK TO [stewards];
GO
CREATE FUNCTION [stg].[may_see_persons](@key BIGINT) RETURNS TABLE WITH SCHEMABINDING AS RETURN SELECT 1 AS [allowed] WHERE IS_ROLEMEMBER('readers') = 1 OR IS_ROLEMEMBER('stewards') = 1 OR IS_ROLEMEMBER('db_owner') = 1;
GO
CREATE SECURITY POLICY [stg].[persons] ADD FILTER PREDICATE [stg].[may_see_persons]([location_key]) ON [dim].[dim_location], ADD FILTER PREDICATE [stg].[may_see_persons]([telco_customer_key]) ON [dim].[dim_telco_customer], ADD FILTER PREDICATE [stg].[may_see_persons]([user_key]) ON [dim].[dim_users] WITH (STATE = ON);
GO
